"""How steady a training was, read off its curve."""

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from diffaudit.records import CurvePoint

VANISHED = 1e-8
"""Below this a gradient norm counts as none."""


def stability(curves: Sequence[CurvePoint], *, clip: float | None = None) -> dict[str, Any]:
    """Return how steady a training was.

    ``coefficient_of_variation`` by term: standard deviation over absolute mean of the unweighted term in the last
    quarter of the steps; null where there are fewer than two values, one is not finite, or the mean is 0.
    ``clipped_steps``: steps with a gradient norm above ``clip``. ``irregular_steps``: share of steps whose gradient
    norm is below 1e-8, not finite, or above 10 times the median of the stage's earlier steps (stages move other
    parameters, so each starts its own median). Null without steps, and ``clipped_steps`` without a ``clip``.

    The gradient norm is one number a step: that of the weighted sum of all terms, before clipping, over all parameters
    that the step moves but the sigmas of learned weights. A term that vanishes or bursts beneath the others does not
    show in it; the health panel says the same of each term.
    """
    last = curves[len(curves) - math.ceil(len(curves) / 4) :]
    terms = dict.fromkeys(name for point in curves for name in point.parts)
    norms = [point.gradient_norm for point in curves]
    return {
        "steps": len(curves),
        "coefficient_of_variation": {
            name: coefficient_of_variation([point.parts[name] for point in last if name in point.parts])
            for name in terms
        },
        "clipped_steps": sum(not norm <= clip for norm in norms) if curves and clip is not None else None,
        "irregular_steps": sum(irregular_steps(curves)) / len(curves) if curves else None,
    }


def coefficient_of_variation(values: Sequence[float]) -> float | None:
    """Return the standard deviation (``N - 1``) over the absolute mean; None where it is undefined.

    >>> coefficient_of_variation([1.0, 2.0, 3.0])
    0.5
    """
    column = np.asarray(values, dtype=np.float64)
    if len(column) < 2 or not np.isfinite(column).all():
        return None
    mean = abs(column.mean())
    return float(column.std(ddof=1) / mean) if mean > 1e-12 * np.abs(column).max() else None


def irregular_steps(curves: Sequence[CurvePoint]) -> list[bool]:
    """Return :func:`irregular` of the gradient norm of every step."""
    return irregular((point.stage, point.gradient_norm) for point in curves)


def irregular(norms: Iterable[tuple[str, float]]) -> list[bool]:
    """Return of each gradient norm whether it vanished (< 1e-8), broke (not finite) or burst (> 10 x the median).

    ``norms`` are in order, each with its stage; the median is that of the stage's earlier ones.

    >>> irregular([("embed", 1.0), ("embed", 1.2), ("embed", 12.0), ("adapt", 12.0), ("adapt", 0.0)])
    [False, False, True, False, True]
    """
    earlier: dict[str, list[float]] = defaultdict(list)
    found = []
    for stage, norm in norms:
        before = earlier[stage]
        burst = bool(before) and norm > 10 * (before[(len(before) - 1) // 2] + before[len(before) // 2]) / 2
        found.append(norm < VANISHED or not math.isfinite(norm) or burst)
        if math.isfinite(norm):
            insort(before, norm)
    return found
