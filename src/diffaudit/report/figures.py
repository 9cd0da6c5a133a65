"""Figures of a report: accuracy by row, and the curves of a training. Drawn with matplotlib, without a window."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from diffaudit.records import CurvePoint
from diffaudit.report.wording import ROWS, found, percentage, row_metrics

Json = Mapping[str, Any]
Floats = NDArray[np.float64]

INK, FAINT, RULE = "#1b1f27", "#5a6270", "#d5d9e0"
SERIES = ("#2a6db0", "#b4531a", "#2e7d4f", "#8a4fa8", "#a8862a", "#a83d55")
_VARIABLES = {
    INK: "currentColor",
    FAINT: "var(--faint)",
    RULE: "var(--rule)",
    **{colour: f"var(--series-{number})" for number, colour in enumerate(SERIES, start=1)},
}
"""The page's colours, so that a figure inside it follows light and dark; a file keeps the light ones."""

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "diffaudit",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.unicode_minus": True,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "path.simplify_threshold": 0.5,
}
"""How every figure is drawn."""
_POINTS = 400


def accuracy_figure(metrics: Json, chance: float | None = None) -> Figure:
    """Judge accuracy of every row with its interval, top-1; a dashed line at chance."""
    rows = [(row, measure) for row in ROWS if (measure := found(row_metrics(metrics, row.key) or {}, "judge_accuracy"))]
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 0.75 + 0.4 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for height, (row, measure) in enumerate(reversed(rows)):
            colour = SERIES[0] if row.key == "attack" else FAINT
            share = 100 * measure["value"]
            if measure["low"] is not None:
                ends = [100 * measure["low"], 100 * measure["high"]]
                axes.plot(ends, [height, height], color=colour, linewidth=5, alpha=0.35, solid_capstyle="round")
            axes.plot([share], [height], "o", color=colour, markersize=7 if row.key == "attack" else 6)
            axes.annotate(
                percentage(measure["value"]),
                (share, height),
                (0, 6) if share > 3 else (5, 5),
                textcoords="offset points",
                ha="center" if share > 3 else "left",
                fontsize=8,
                color=colour,
            )
        if chance is not None:
            axes.axvline(100 * chance, color=FAINT, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
            axes.annotate(
                "chance",
                (100 * chance, 1),
                (0, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=8,
                color=FAINT,
            )
        axes.set_yticks(range(len(rows)), [row.title for row, _ in reversed(rows)])
        axes.tick_params(axis="y", labelcolor=INK, labelsize=9)
        axes.set_xlim(-3, 103)
        axes.set_ylim(-0.6, len(rows) - 0.3)
        axes.set_xticks([0, 25, 50, 75, 100])
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False, axis="y")
        axes.set_xlabel("judged as the person sought, in % of images (mean of the judges, 95 % interval)")
    return figure


def curve_figures(curves: Sequence[CurvePoint]) -> dict[str, tuple[str, Figure]]:
    """Small figures by file stem, each with its title: every unweighted term, then the rest of the training.

    >>> curve_figures([])
    {}
    """
    if not curves:
        return {}
    stages = [point.stage for point in curves]
    terms = dict.fromkeys(name for point in curves for name in point.parts)
    figures = term_figures({name: [point.parts.get(name) for point in curves] for name in terms}, stages)
    weights = dict.fromkeys(name for point in curves for name in point.weights)
    if weights:
        lines = {name: [point.weights.get(name) for point in curves] for name in weights}
        figures["weights"] = ("weights in force", panel("weights in force", lines, stages=stages))
    for stem, title, line in (
        ("accuracy", "target accuracy of the batch", [point.target_accuracy for point in curves]),
        ("gradient", "gradient norm, before clipping", [point.gradient_norm for point in curves]),
    ):
        figures[stem] = (title, panel(title, {"": line}, smooth=True, stages=stages))
    return figures


def term_figures(
    terms: Mapping[str, Sequence[float | None]], stages: Sequence[str] = ()
) -> dict[str, tuple[str, Figure]]:
    """A small figure for every term, by file stem, with its title."""
    return {
        f"term-{_stem(name)}": (name, panel(name, {"": line}, smooth=True, stages=stages))
        for name, line in terms.items()
    }


def inline_svg(figure: Figure, title: str) -> str:
    """The figure as an ``<svg>`` element in the page's colours and type, with ``title`` as its accessible name."""
    svg = _svg(figure)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, variable)
    prefix = _stem(title)
    svg = re.sub(r"<style .*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: inherit", svg)
    width, height = (round(96 * length, 1) for length in figure.get_size_inches())
    box = re.search(r'viewBox="[^"]+"', svg)
    label = escape(title, quote=True)
    opening = f'<svg role="img" aria-label="{label}" {box[0] if box else ""} width="{width}" height="{height}">'
    return opening + svg[svg.index(">") + 1 :]


def save_figure(figure: Figure, folder: Path, stem: str) -> None:
    """Writes ``stem.svg`` and ``stem.png`` on white."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{stem}.svg").write_text(_svg(figure), encoding="utf-8")
    figure.savefig(folder / f"{stem}.png", dpi=160, facecolor="white", metadata={"Software": None})


def panel(
    title: str, lines: Mapping[str, Sequence[float | None]], *, smooth: bool = False, stages: Sequence[str] = ()
) -> Figure:
    """A small figure of ``lines`` by name over steps; with ``smooth`` their running means too, a mark a new stage."""
    begins = _stage_begins(stages)
    steps = max(len(values) for values in lines.values())
    with rc_context(STYLE):
        figure = Figure(figsize=(3.5, 2.0), layout="constrained")
        axes = figure.add_subplot()
        for number, (name, values) in enumerate(lines.items()):
            column = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
            column[~np.isfinite(column)] = np.nan
            colour = SERIES[number % len(SERIES)]
            if smooth and np.isfinite(column).sum() > 20:
                _plot(axes, column, color=colour, linewidth=0.7, alpha=0.3)
                _plot(axes, smoothed(column, begins), color=colour, linewidth=1.6)
            else:
                _plot(axes, column, color=colour, linewidth=1.6, label=name)
        _mark_stages(axes, stages)
        axes.set_title(title, pad=14 if len(begins) > 1 else 6)
        axes.set_xlim(0, max(1, steps - 1))
        axes.margins(y=0.12)
        axes.locator_params(axis="both", nbins=4)
        if len(lines) > 1:
            axes.legend(ncols=3, loc="upper left", bbox_to_anchor=(0, -0.12), handlelength=1.2, columnspacing=1)
    return figure


def _plot(axes: Axes, column: Floats, **style: Any) -> None:
    kept = np.unique(np.linspace(0, len(column) - 1, min(len(column), _POINTS)).astype(np.intp))
    axes.plot(kept, column[kept], **style)


def smoothed(column: Floats, begins: Sequence[int]) -> Floats:
    """Centred running mean of what is known, over a twentieth of the steps; stages do not run into each other."""
    kernel = np.ones(max(3, len(column) // 20))
    parts = []
    for part in np.split(column, begins[1:]):
        known = np.isfinite(part)
        sums, counts = (
            np.convolve(values, kernel)[len(kernel) // 2 :][: len(part)]
            for values in (np.where(known, part, 0.0), known.astype(np.float64))
        )
        parts.append(np.where(known, sums / np.maximum(counts, 1), np.nan))
    return np.concatenate(parts)


def _stage_begins(stages: Sequence[str]) -> list[int]:
    return [0, *(step for step in range(1, len(stages)) if stages[step] != stages[step - 1])]


def _mark_stages(axes: Axes, stages: Sequence[str]) -> None:
    begins = _stage_begins(stages)
    for begin in begins:
        if begin:
            axes.axvline(begin, color=FAINT, linewidth=0.8, linestyle=(0, (2, 2)))
        if len(begins) > 1:
            axes.annotate(
                stages[begin],
                (begin, 1),
                (2, 2),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                fontsize=7.5,
                color=FAINT,
            )


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    with rc_context(STYLE):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = file.getvalue()
    return svg[svg.index("<svg") :]


def _stem(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
