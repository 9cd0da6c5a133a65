"""The figures of a perturbation: its attack on the frontier, among the references, and how it went step by step."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from diffaudit.records import REBUILT, CoursePoint
from diffaudit.report.figures import panel, term_figures
from diffaudit.report.frontier import Point, Series, frontier
from diffaudit.report.perturbation_wording import attack_family, attack_title, headline
from diffaudit.report.wording import Measure, found

Json = Mapping[str, Any]


def frontier_figure(metrics: Json) -> Figure | None:
    """Every attack as a point with both intervals; budgets of one reference are joined. None without a held-out model.

    Higher fools more held-out models, further left is less visible: what counts is the upper left.
    """
    success = headline(metrics)
    mine = frontier_point("", metrics, success)
    series = [Series(attack_title("attack"), (mine,), size=9)] if mine else []
    series += reference_series(metrics["references"].items(), success)
    return frontier(series, success.title.lower()) if series else None


def frontier_point(label: str, measures: Json, success: Measure) -> Point | None:
    """A row's point; None where it has no such success or no perceptual distance."""
    transfer, distance = found(measures, success.key), found(measures, "perceptual_distance")
    return Point(label, transfer, distance) if transfer and distance else None


def reference_series(rows: Iterable[tuple[str, Json]], success: Measure) -> list[Series]:
    """The reference attacks by method, their budgets joined, and what is rebuilt without a perturbation."""
    families: dict[str, list[Point]] = defaultdict(list)
    rebuilt: list[Point] = []
    for row, measures in rows:
        family, budget = attack_family(row)
        point = frontier_point("" if row == REBUILT else budget, measures, success)
        if point is not None:
            (rebuilt if row == REBUILT else families[family]).append(point)
    series = [Series(family, tuple(points), joined=True) for family, points in families.items()]
    return [*series, Series(attack_title(REBUILT), tuple(rebuilt), marker="D", faint=True)] if rebuilt else series


def course_figures(points: Sequence[CoursePoint]) -> dict[str, tuple[str, Figure]]:
    """Small figures by file stem, each with its title: surrogates fooled, pictures that still move, every term.

    >>> course_figures([])
    {}
    """
    if not points:
        return {}

    def percent(shares: Iterable[float | None]) -> list[float | None]:
        return [None if share is None else 100 * share for share in shares]

    fooled = {name: percent(point.fooled[name] for point in points) for name in points[0].fooled}
    moving = percent(point.moving for point in points)
    terms = dict.fromkeys(name for point in points for name in point.parts)
    return {
        "fooled": ("surrogates fooled, %", panel("surrogates fooled, %", fooled)),
        "moving": ("pictures that still move, %", panel("pictures that still move, %", {"": moving})),
        **term_figures({name: [point.parts.get(name) for point in points] for name in terms}),
    }
