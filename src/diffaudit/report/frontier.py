"""The frontier: transfer success against the perceptual distance that it cost, every point with both its intervals."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diffaudit.report.figures import FAINT, INK, SERIES, STYLE

Json = Mapping[str, Any]
Box = tuple[float, float, float, float]
"""Left, bottom, right, top, in points."""

_FONT = 8.0
_FAR = 12.0
"""From so many points on, a line leads from a point to its name."""
_OFFSETS = [
    (x, y)
    for away in (8, 16, 26, 38, 52, 68)
    for x in (0.8 * away, -0.8 * away, 0.0)
    for y in (0.8 * away, -0.8 * away, 0.0, 1.6 * away, -1.6 * away)
    if math.hypot(x, y) > 7
]
"""Where a name may stand beside its point, in points."""


@dataclass(frozen=True)
class Point:
    """A row: what stands beside it, and its transfer success and perceptual distance with their intervals."""

    label: str
    transfer: Json
    distance: Json


@dataclass(frozen=True)
class Series:
    """Points of one colour with one name in the legend; ``joined`` ones are budgets of one method."""

    title: str
    points: tuple[Point, ...]
    joined: bool = False
    marker: str = "o"
    size: float = 6
    faint: bool = False


def frontier(series: Sequence[Series], success: str, *, height: float = 4.2) -> Figure:
    """The points of all series; ``success`` names what is counted.

    Higher fools more held-out models, further left is less visible: upper left counts.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, height), layout="constrained")
        axes = figure.add_subplot()
        colours = iter(SERIES * len(series))
        labels = []
        for one in series:
            colour = FAINT if one.faint else next(colours)
            _draw(axes, one, colour)
            labels += [(point, colour if one.joined or one.faint else INK) for point in one.points if point.label]
        axes.set_ylim(-3, 103)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_xlim(left=0)
        axes.margins(x=0.08)
        axes.set_xlabel("perceptual distance to the clean picture (further left: less visible)")
        axes.set_ylabel(f"{success}, in %")
        axes.annotate(
            "\N{NORTH WEST ARROW} better",
            (0, 1),
            (6, -14),
            xycoords="axes fraction",
            textcoords="offset points",
            ha="left",
            va="top",
            fontsize=8,
            color=FAINT,
        )
        axes.legend(
            ncols=min(6, len(series)), loc="lower left", bbox_to_anchor=(0, 1.0), handlelength=1.4, columnspacing=1.4
        )
        figure.draw_without_rendering()  # the layout is settled: points have their places
        _label(axes, labels, [point for one in series for point in one.points])
    return figure


def _draw(axes: Axes, series: Series, colour: str) -> None:
    points = sorted(series.points, key=lambda point: float(point.distance["value"]))
    across = [point.distance["value"] for point in points]
    up = [100 * point.transfer["value"] for point in points]
    for point, x, y in zip(points, across, up, strict=True):
        if point.distance["low"] is not None:
            ends = [point.distance["low"], point.distance["high"]]
            axes.plot(ends, [y, y], color=colour, linewidth=1.4, alpha=0.45)
        if point.transfer["low"] is not None:
            ends = [100 * point.transfer["low"], 100 * point.transfer["high"]]
            axes.plot([x, x], ends, color=colour, linewidth=1.4, alpha=0.45)
    axes.plot(
        across,
        up,
        series.marker,
        linestyle="-" if series.joined and len(points) > 1 else "none",
        color=colour,
        linewidth=1,
        markersize=series.size,
        label=series.title,
        zorder=3,
    )


def _label(axes: Axes, labels: Sequence[tuple[Point, str]], points: Sequence[Point]) -> None:
    """A name beside each point: inside the axes, on no point and no other name, off the bars where there is room."""
    frame = axes.get_window_extent()
    scale = 72 / axes.figure.dpi
    inside = (frame.x0 * scale, frame.y0 * scale, frame.x1 * scale, frame.y1 * scale)
    corner = (inside[0], inside[3] - 26, inside[0] + 50, inside[3])  # where "better" stands
    places = [_place(axes, point.distance["value"], point.transfer["value"], scale) for point in points]
    taken = [corner, *((x - 4, y - 4, x + 4, y + 4) for x, y in places)]
    bars = [bar for point in points for bar in _bars(axes, point, scale)]
    for point, colour in labels:
        x, y = _place(axes, point.distance["value"], point.transfer["value"], scale)
        size = (0.6 * _FONT * len(point.label), 1.1 * _FONT)
        best, least = _OFFSETS[0], math.inf
        for offset in _OFFSETS:
            box = _box(x, y, offset, size)
            crossed = sum(_meet(box, bar) for bar in bars)
            hidden = sum(_meet(box, other) for other in taken) + (not _within(box, inside))
            cost = math.hypot(*offset) + 10 * crossed + 1000 * hidden
            if cost < least:
                best, least = offset, cost
        taken.append(_box(x, y, best, size))
        axes.annotate(
            point.label,
            (point.distance["value"], 100 * point.transfer["value"]),
            best,
            textcoords="offset points",
            ha="left" if best[0] > 0 else "right" if best[0] < 0 else "center",
            va="center",
            fontsize=_FONT,
            color=colour,
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
            if math.hypot(*best) > _FAR
            else None,
        )


def _box(x: float, y: float, offset: tuple[float, float], size: tuple[float, float]) -> Box:
    width, height = size
    left = x + offset[0] - (0 if offset[0] > 0 else width if offset[0] < 0 else width / 2)
    return left, y + offset[1] - height / 2, left + width, y + offset[1] + height / 2


def _place(axes: Axes, distance: float, transfer: float, scale: float) -> tuple[float, float]:
    x, y = axes.transData.transform((distance, 100 * transfer))
    return float(x) * scale, float(y) * scale


def _bars(axes: Axes, point: Point, scale: float) -> Iterator[Box]:
    """The intervals of a point, as boxes without a width."""
    transfer, distance = point.transfer, point.distance
    if distance["low"] is not None:
        (left, y), (right, _) = (_place(axes, distance[end], transfer["value"], scale) for end in ("low", "high"))
        yield left, y, right, y
    if transfer["low"] is not None:
        (x, bottom), (_, top) = (_place(axes, distance["value"], transfer[end], scale) for end in ("low", "high"))
        yield x, bottom, x, top


def _within(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
