"""What a reference attack does at the perceptual distance of the attack, read between its budgets."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffaudit.report.perturbation_wording import attack_family, attack_title
from diffaudit.report.wording import found

Json = Mapping[str, Any]

Budget = tuple[float, Json, str]
"""The distance of a reference's budget, its success, and the row that it is."""

UNCHANGED: Budget = (0.0, {"value": 0.0, "low": 0.0, "high": 0.0}, "")
"""No change costs nothing and fools nobody: a model that is right stays so."""


@dataclass(frozen=True)
class Rival:
    """A reference at no larger a distance than the attack's.

    Attributes:
        title: the method with its budget, or the budgets that it is between.
        success: ``value``, ``low`` and ``high``.
        distance: the perceptual distance.
        measured: whether this budget was run; else it is read between budgets that were (:func:`rivals_within`).
    """

    title: str
    success: Json
    distance: float
    measured: bool


def rivals_within(
    distance: float, references: Mapping[str, Json], key: str, *, from_nothing: bool = True
) -> list[Rival]:
    """Every budget that was measured within ``distance`` and, of methods measured beyond it, the point on the way.

    Between two budgets a method is given the larger of two: what the straight line between them has, and what it would
    have had it gone on as it came to the lower one, but no more than the upper. The second is the larger where success
    grows ever more slowly, as it mostly does. Before the first budget there is the straight line from no change alone,
    which may be too little; without ``from_nothing`` such a method is left out (:func:`first_beyond` has it).
    """
    rivals = []
    for method, points in _by_method(references, key).items():
        near = [point for point in points if point[0] <= distance]
        rivals += [Rival(attack_title(row), success, cost, measured=True) for cost, success, row in near]
        if len(near) < len(points) and (from_nothing if not near else near[-1][0] < distance):
            before, lower = [UNCHANGED, UNCHANGED, *near][-2:]
            title = _between(method, lower[2], points[len(near)][2])
            success = _on_the_way(distance, before, lower, points[len(near)])
            rivals.append(Rival(title, success, distance, measured=False))
    return rivals


def first_beyond(distance: float, references: Mapping[str, Json], key: str) -> list[Rival]:
    """Of methods that were measured at larger distances alone, the first budget: nearer by, it would do no more."""
    rivals = []
    for points in _by_method(references, key).values():
        cost, success, row = points[0]
        if cost > distance:
            rivals.append(Rival(f"{attack_title(row)} (farther)", success, cost, measured=True))
    return rivals


def ended_before(distance: float, references: Mapping[str, Json], key: str) -> dict[str, float]:
    """Methods that were measured at smaller distances alone, each with its largest."""
    largest = {method: points[-1][0] for method, points in _by_method(references, key).items()}
    return {method: cost for method, cost in largest.items() if cost < distance}


def _by_method(references: Mapping[str, Json], key: str) -> dict[str, list[Budget]]:
    """What was measured of each method, nearest first."""
    methods: dict[str, list[Budget]] = defaultdict(list)
    for row, measures in references.items():
        success, cost = found(measures, key), found(measures, "perceptual_distance")
        if success and cost:
            methods[attack_family(row)[0]].append((cost["value"], success, row))
    return {method: sorted(points, key=lambda point: point[0]) for method, points in methods.items()}


def _between(method: str, lower: str, upper: str) -> str:
    above = attack_family(upper)[1]
    return f"{method} between {attack_family(lower)[1]} and {above}" if lower else f"{method} below {above}".strip()


def _on_the_way(distance: float, before: Budget, lower: Budget, upper: Budget) -> Json:
    def bound(name: str) -> float:
        came, low, high = (
            point[1]["value"] if point[1][name] is None else point[1][name] for point in (before, lower, upper)
        )
        line = low + (high - low) * (distance - lower[0]) / (upper[0] - lower[0])
        if lower[0] == before[0]:
            return float(line)
        gone_on = low + (low - came) * (distance - lower[0]) / (lower[0] - before[0])
        return float(max(line, min(gone_on, high)))

    return {name: bound(name) for name in ("value", "low", "high")}
