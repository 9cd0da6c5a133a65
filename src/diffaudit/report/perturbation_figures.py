"""The headline figure of a perturbation: transfer success against the perceptual distance that it cost."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from diffaudit.report.figures import FAINT, SERIES, STYLE
from diffaudit.report.perturbation_tables import attack_rows
from diffaudit.report.wording import found

Json = Mapping[str, Any]


def frontier_figure(metrics: Json) -> Figure | None:
    """Every attack as a point with both intervals; budgets of one reference are joined. None without a held-out model.

    Higher fools more held-out models, further left is less visible: what counts is the upper left.
    """
    families: dict[str, list[tuple[str, Json, Json]]] = defaultdict(list)
    for row, measures in attack_rows(metrics):
        transfer, distance = found(measures, "transfer_mean"), found(measures, "perceptual_distance")
        if transfer and distance:
            family, _, budget = row.title.rpartition(" ")
            families[family or row.title].append((budget if family else "", transfer, distance))
    if not families:
        return None
    with rc_context(STYLE):
        figure = Figure(figsize=(8.4, 4.2), layout="constrained")
        axes = figure.add_subplot()
        for number, (family, points) in enumerate(families.items()):
            colour = SERIES[number % len(SERIES)]
            points.sort(key=lambda point: point[2]["value"])
            across = [distance["value"] for _, _, distance in points]
            up = [100 * transfer["value"] for _, transfer, _ in points]
            for (budget, transfer, distance), x, y in zip(points, across, up, strict=True):
                if distance["low"] is not None:
                    axes.plot([distance["low"], distance["high"]], [y, y], color=colour, linewidth=1.4, alpha=0.45)
                if transfer["low"] is not None:
                    ends = [100 * transfer["low"], 100 * transfer["high"]]
                    axes.plot([x, x], ends, color=colour, linewidth=1.4, alpha=0.45)
                if budget:  # names of two families that run side by side stand on either side of them
                    beside = (6, 5) if number % 2 == 0 else (6, -11)
                    axes.annotate(budget, (x, y), beside, textcoords="offset points", fontsize=8, color=colour)
            axes.plot(
                across,
                up,
                "o-" if len(points) > 1 else "o",
                color=colour,
                linewidth=1,
                markersize=9 if family == "Attack" else 6,
                label=family,
                zorder=3,
            )
        axes.set_ylim(-3, 103)
        axes.set_yticks([0, 25, 50, 75, 100])
        axes.set_xlim(left=0)
        axes.margins(x=0.08)
        axes.set_xlabel("perceptual distance to the clean picture (further left: less visible)")
        axes.set_ylabel("held-out models fooled, in %")
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
        axes.legend(ncols=4, loc="lower left", bbox_to_anchor=(0, 1.0), handlelength=1.4, columnspacing=1.4)
    return figure
