"""Figures of an ablation: rows with their intervals, the frontier of perturbations, and what trainings did by step."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from diffaudit.records import CurvePoint
from diffaudit.report.ablation_layout import MODES, Layout, title
from diffaudit.report.figures import FAINT, INK, SERIES, STYLE, Floats, smoothed
from diffaudit.report.frontier import Series, frontier
from diffaudit.report.perturbation_figures import frontier_point, reference_series
from diffaudit.report.wording import Measure

Json = Mapping[str, Any]
Curves = Mapping[str, Sequence[Sequence[CurvePoint]]]

_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
_MODE_COLOURS = {"one_step": SERIES[1], "rollout": SERIES[0], None: SERIES[0]}


def rows_figure(rows: Sequence[Json], layout: Layout) -> Figure:
    """The headline share of every row with its interval, coloured by mode, with lines at rows of reference."""
    measure = layout.headline.key
    shown = [row for row in rows if row["metrics"].get(measure)]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.9 + 0.3 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        for height, row in enumerate(reversed(shown)):
            found, colour = row["metrics"][measure], FAINT if row["reference"] else _MODE_COLOURS[row["mode"]]
            if found["low"] is not None:
                ends = [100 * found["low"], 100 * found["high"]]
                axes.plot(ends, [height, height], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot([100 * found["value"]], [height], "o", color=colour, markersize=6)
        lines = [row for row in shown if row["name"] in layout.lines]
        for row in lines:
            axes.axvline(100 * row["metrics"][measure]["value"], color=FAINT, linewidth=1, linestyle=_DASHES[1])
        axes.set_yticks(range(len(shown)), [title(row) for row in reversed(shown)])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.grid(visible=False, axis="y")
        dashed = f"; dashed: {' and '.join(dict.fromkeys(row['name'] for row in lines))}" if lines else ""
        axes.set_xlabel(f"{layout.headline.title.lower()}, in % of images (95 % interval){dashed}")
    return figure


def ablation_frontier(rows: Sequence[Json], success: Measure) -> Figure | None:
    """Every row of perturbations by name, the baseline marked, among the reference attacks.

    None where no row has both that success and a perceptual distance, as inversions have not.
    """
    attacks = [row for row in rows if not row["reference"]]
    series = []
    for words, marker, members in (
        ("baseline", "s", [row for row in attacks if row["baseline"]]),
        ("rows", "o", [row for row in attacks if not row["baseline"]]),
    ):
        found = [frontier_point(row["name"], row["metrics"], success) for row in members]
        points = [point for point in found if point is not None]
        series += [Series(words, tuple(points), marker=marker, size=7)] if points else []
    if not series:
        return None
    series += reference_series(((row["name"], row["metrics"]) for row in rows if row["reference"]), success)
    return frontier(series, success.title.lower(), height=5.4)


def training_figures(curves: Curves, mode: str | None, group: str = "") -> dict[str, tuple[str, Figure]]:
    """Figures by file stem, each with its title: every unweighted term, every weight, target accuracy; a line a row.

    ``curves`` holds each row's trainings, one a seed; a line is their mean. Rows of one mode, and of one ``group``,
    share a figure.
    """
    points = [point for runs in curves.values() for run in runs for point in run]
    terms = dict.fromkeys(name for point in points for name in point.parts)
    weights = dict.fromkeys(name for point in points for name in point.weights)
    where = f" ({MODES[mode]})" if mode else ""
    begin = "-".join(part for part in (group, mode or "") if part) or "all"
    kinds: list[tuple[str, str, Any]] = [
        ("accuracy", "target accuracy of the batch", lambda point: point.target_accuracy)
    ]
    kinds += [(f"term-{name}", name, lambda point, name=name: point.parts.get(name)) for name in terms]
    kinds += [
        (f"weight-{name}", f"weight of {name}", lambda point, name=name: point.weights.get(name)) for name in weights
    ]
    figures = {}
    for stem, words, read in kinds:
        lines = {row: line for row, runs in curves.items() if (line := _mean_line(runs, read)) is not None}
        if lines:
            figures[f"{begin}-{stem}"] = (words + where, _lines(words + where, lines, stem[:6] != "weight"))
    return figures


def _mean_line(runs: Sequence[Sequence[CurvePoint]], read: Any) -> Floats | None:
    """Mean over the runs at each step that all of them took; None where nothing is known."""
    steps = min((len(run) for run in runs), default=0)
    if not steps:
        return None
    values = [[np.nan if (value := read(point)) is None else value for point in run[:steps]] for run in runs]
    table = np.array(values, dtype=np.float64)
    table[~np.isfinite(table)] = np.nan
    return None if np.isnan(table).all() else table.mean(axis=0)


def _lines(words: str, lines: Mapping[str, Floats], smooth: bool) -> Figure:
    with rc_context(STYLE):
        figure = Figure(figsize=(6.4, max(2.9, 0.6 + 0.21 * len(lines))), layout="constrained")  # the legend fits
        axes = figure.add_subplot()
        for number, (row, line) in enumerate(lines.items()):
            axes.plot(
                smoothed(line, [0]) if smooth and len(line) > 20 else line,
                color=SERIES[number % len(SERIES)],
                linestyle=_DASHES[number // len(SERIES) % len(_DASHES)],
                linewidth=1.4,
                label=row,
            )
        axes.set_title(words)
        axes.set_xlabel("step")
        axes.locator_params(axis="both", nbins=5)
        axes.margins(x=0.01, y=0.12)
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), handlelength=1.8)
    return figure
