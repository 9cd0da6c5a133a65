"""Schemes: bundles of terms and weightings by the letters they are known by, laid under what a file says itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from diffaudit.settings.attack import AnyWeights, Stage
from diffaudit.settings.base import Section
from diffaudit.settings.terms import GROUPS, Group, Terms
from diffaudit.settings.weighed import weights_by_stage

Scheme = Literal["A", "B", "C", "D"]

LEAD = 10.0
"""Logits by which a class leads before the softplus under learned weights fades. Without it the term has 2 % of its
gradient left at a lead of 4, which is where the baseline's attack comes to on average."""

OVERLAYS: Mapping[Scheme, Mapping[str, Any]] = {
    "A": {"terms": {"prior": [{"kind": "noise", "distance": "cosine", "schedule": "cosine"}]}},
    "B": {
        "terms": {
            "cls": [
                {"kind": "top_k", "k": None},
                {"kind": "feature", "centres": "learned"},
                {"kind": "logit_margin"},
            ],
            "id": [{"kind": "contrastive"}],
        }
    },
    "C": {
        "terms": {
            "perc": [
                {"kind": "attributes", "factor": 0.6},
                {"kind": "perceptual", "form": "hierarchical", "factor": 0.4},
                {"kind": "diversity", "factor": 0.1},
            ]
        }
    },
    "D": {"weighting": {"kind": "uncertainty", "rate": 0.1}},
}
"""A: the prior by a weighted cosine. B: classifier and identity. C: attributes, depth, diversity. D: learned weights.

Scheme A's other half, to protect the generator first and release it later, is a list of stages: it is written out in
the configurations that use it.
"""


def with_schemes(values: Mapping[str, Any], schemes: Sequence[Scheme]) -> dict[str, Any]:
    """``values`` with the schemes laid under them: a key that is given stays, lists are taken whole.

    A section that is given as an object says what it was made with, not its defaults.

    >>> with_schemes({"terms": {"id": []}}, ["A", "B"])["terms"]["id"]
    []
    """
    return _laid_under(values, _together(schemes))


def overridden(schemes: Sequence[Scheme], terms: Terms, weighting: AnyWeights) -> dict[Scheme, list[str]]:
    """The schemes of which nothing is left in the settings, each with its keys, all of which say something else.

    >>> from diffaudit.settings import StagedWeights
    >>> overridden(["A", "C"], Terms.model_validate(OVERLAYS["C"]["terms"]), StagedWeights())
    {'A': ['terms.prior']}
    """
    kept = _kept(schemes, terms, weighting)
    return {scheme: keys for scheme in schemes if kept.isdisjoint(keys := _keys(scheme))}


def weightless(
    schemes: Sequence[Scheme], terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]
) -> dict[Scheme, list[Group]]:
    """The schemes of which the settings keep terms alone, of groups that weigh 0 in every stage that takes steps.

    Each comes with these groups. Where no stage takes a step nothing trains whatever is named, and none is told.

    >>> from diffaudit.settings import StagedWeights
    >>> stage = Stage(name="embed", trains=["embedding"], steps=1, rate=0.1, weights={"cls": 1.0})
    >>> weightless(["A"], Terms.model_validate(OVERLAYS["A"]["terms"]), StagedWeights(), [stage])
    {'A': ['prior']}
    """
    running = [
        weights
        for stage, weights in zip(stages, weights_by_stage(weighting, terms, stages), strict=True)
        if stage.steps > 0
    ]
    if not running:
        return {}
    idle = {f"terms.{group}": group for group in GROUPS if not any(weights.get(group) for weights in running)}
    kept = _kept(schemes, terms, weighting)
    found = {scheme: [key for key in _keys(scheme) if key in kept] for scheme in schemes}
    return {scheme: [idle[key] for key in keys] for scheme, keys in found.items() if keys and idle.keys() >= set(keys)}


def _kept(schemes: Sequence[Scheme], terms: Terms, weighting: AnyWeights) -> set[str]:
    """The keys at which the settings say what the schemes say."""
    laid = _together(schemes)
    wanted = Terms.model_validate(laid.get("terms", {}))
    kept = {f"terms.{group}" for group in GROUPS if getattr(terms, group) == getattr(wanted, group)}
    if weighting.kind == laid.get("weighting", {}).get("kind"):
        kept.add("weighting")
    return kept


def _together(schemes: Sequence[Scheme]) -> dict[str, Any]:
    """What the schemes say, as one.

    Learned weights need terms of at least 0, so with D the classifier's margin is taken as its softplus, which does not
    fade before the class leads by :data:`LEAD` logits.
    """
    laid: dict[str, Any] = {}
    for scheme in schemes:
        laid = _laid_under(laid, OVERLAYS[scheme])
    if "D" in schemes:
        laid = _laid_under(laid, {"terms": {"cls": [{"kind": "top_k"}, {"kind": "feature"}]}})
        terms = [
            {"bounded": True, "margin": LEAD, **term} if term["kind"] == "top_k" else term
            for term in laid["terms"]["cls"]
        ]
        laid = {**laid, "terms": {**laid["terms"], "cls": terms}}
    return laid


def _keys(scheme: Scheme) -> list[str]:
    """Where a scheme says something."""
    laid = _together([scheme])
    return [f"terms.{group}" for group in laid.get("terms", {})] + (["weighting"] if "weighting" in laid else [])


def _laid_under(values: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """Both, ``values`` deciding; mappings that say another ``kind`` are not mixed."""
    mixed = {**under, **values}
    for key in values.keys() & under.keys():
        one, other = _said(values[key]), under[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping) and one.get("kind") == other.get("kind"):
            mixed[key] = _laid_under(one, other)
    return mixed


def _said(value: Any) -> Any:
    """A section as the mapping that it was made from; anything else as it is."""
    if not isinstance(value, Section):
        return value
    names = type(value).model_fields.keys() & (value.model_fields_set | {"kind"})
    return {name: getattr(value, name) for name in names}
