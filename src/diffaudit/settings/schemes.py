"""Schemes: bundles of terms and weightings by the letters they are known by, laid under what a file says itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from diffaudit.settings.attack import AnyWeights
from diffaudit.settings.base import Section
from diffaudit.settings.terms import GROUPS, Terms

Scheme = Literal["A", "B", "C", "D"]

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
    laid = _together(schemes)
    wanted = Terms.model_validate(laid.get("terms", {}))
    kept = {f"terms.{group}" for group in GROUPS if getattr(terms, group) == getattr(wanted, group)}
    if weighting.kind == laid.get("weighting", {}).get("kind"):
        kept.add("weighting")
    return {scheme: keys for scheme in schemes if kept.isdisjoint(keys := _keys(scheme))}


def _together(schemes: Sequence[Scheme]) -> dict[str, Any]:
    """What the schemes say, as one.

    Learned weights need terms of at least 0, so with D the classifier's margin is taken as its softplus.
    """
    laid: dict[str, Any] = {}
    for scheme in schemes:
        laid = _laid_under(laid, OVERLAYS[scheme])
    if "D" in schemes:
        laid = _laid_under(laid, {"terms": {"cls": [{"kind": "top_k"}, {"kind": "feature"}]}})
        terms = [{"bounded": True, **term} if term["kind"] == "top_k" else term for term in laid["terms"]["cls"]]
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
