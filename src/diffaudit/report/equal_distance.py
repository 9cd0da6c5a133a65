"""What a reference attack does at the perceptual distance of the attack, read off the line through its budgets."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffaudit.report.perturbation_wording import attack_family, attack_title
from diffaudit.report.wording import found

Json = Mapping[str, Any]

NOTHING = {"value": 0.0, "low": 0.0, "high": 0.0}
"""The success of no change, which no distance was paid for: a model that is right stays so."""


@dataclass(frozen=True)
class Rival:
    """A reference at no larger a distance than the attack's.

    Attributes:
        title: the method with its budget, or the budgets that it is between.
        success: ``value``, ``low`` and ``high``.
        distance: the perceptual distance.
        measured: whether this budget was run; else it lies on a straight line between two that were.
    """

    title: str
    success: Json
    distance: float
    measured: bool


def rivals_within(distance: float, references: Mapping[str, Json], key: str) -> list[Rival]:
    """Every budget that was measured within ``distance`` and, of methods measured beyond it, the point on the way.

    The line of a method joins its budgets by distance and begins at no change, no success. Success mostly grows late,
    so that the line is above what a small budget would do: the comparison favours the references.
    """
    methods: dict[str, list[tuple[float, Json, str]]] = defaultdict(list)
    for row, measures in references.items():
        success, cost = found(measures, key), found(measures, "perceptual_distance")
        if success and cost:
            methods[attack_family(row)[0]].append((cost["value"], success, row))
    rivals = []
    for method, points in methods.items():
        points.sort(key=lambda point: point[0])
        near = [point for point in points if point[0] <= distance]
        rivals += [Rival(attack_title(row), success, cost, measured=True) for cost, success, row in near]
        if len(near) < len(points) and (not near or near[-1][0] < distance):
            lower, upper = near[-1] if near else (0.0, NOTHING, ""), points[len(near)]
            title = _between(method, lower[2], upper[2])
            rivals.append(Rival(title, _on_the_line(distance, lower, upper), distance, measured=False))
    return rivals


def reach(references: Mapping[str, Json]) -> float:
    """The largest perceptual distance at which a reference was measured."""
    costs = [found(measures, "perceptual_distance") for measures in references.values()]
    return max((cost["value"] for cost in costs if cost), default=0.0)


def _between(method: str, lower: str, upper: str) -> str:
    above = attack_family(upper)[1]
    return f"{method} between {attack_family(lower)[1]} and {above}" if lower else f"{method} below {above}".strip()


def _on_the_line(distance: float, lower: tuple[float, Json, str], upper: tuple[float, Json, str]) -> Json:
    ends = (lower[0], upper[0])

    def bound(name: str) -> float:
        values = [point["value"] if point[name] is None else point[name] for point in (lower[1], upper[1])]
        return float(np.interp(distance, ends, values))

    return {name: bound(name) for name in NOTHING}
