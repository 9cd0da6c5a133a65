"""Schemes: bundles of terms and weightings by the letters they are known by, laid under what a file says itself."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

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
    "D": {"weighting": {"kind": "uncertainty"}},
}
"""A: the prior by a weighted cosine. B: classifier and identity. C: attributes, depth, diversity. D: learned weights.

Scheme A's other half, to protect the generator first and release it later, is a list of stages: it is written out in
the configurations that use it.
"""


def with_schemes(values: Mapping[str, Any], schemes: Sequence[Scheme]) -> dict[str, Any]:
    """``values`` with the schemes laid under them: a key that is given stays, lists are taken whole.

    Learned weights need terms of at least 0, so with D the classifier's margin is taken as its softplus, unless the
    file says otherwise.

    >>> with_schemes({"terms": {"id": []}}, ["A", "B"])["terms"]["id"]
    []
    """
    under: dict[str, Any] = {}
    for scheme in schemes:
        under = _laid_under(under, OVERLAYS[scheme])
    if "D" in schemes:
        under = _laid_under(under, {"terms": {"cls": [{"kind": "top_k"}, {"kind": "feature"}]}})
        terms = [{"bounded": True, **term} if term["kind"] == "top_k" else term for term in under["terms"]["cls"]]
        under = {**under, "terms": {**under["terms"], "cls": terms}}
    return _laid_under(values, under)


def _laid_under(values: Mapping[str, Any], under: Mapping[str, Any]) -> dict[str, Any]:
    """Both, ``values`` deciding; mappings that say another ``kind`` are not mixed."""
    mixed = {**under, **values}
    for key in values.keys() & under.keys():
        one, other = values[key], under[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping) and one.get("kind") == other.get("kind"):
            mixed[key] = _laid_under(one, other)
    return mixed
