"""The few figures of ``metrics.json`` that end a run on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

LABELS = {
    "attack": "attack",
    "attack-finished": "its pixels optimised: no reconstructions",
    "start": "start: no step taken",
    "oracle": "oracle: true embedding",
    "upper": "upper: private photographs",
    "lower": "lower: other people",
    "rebuilt": "rebuilt: no perturbation",
}


def summary_table(metrics: Mapping[str, Any]) -> Table:
    """One line a row of images: the target's accuracy and the judges', with its interval over classes.

    Rows that the run did not judge are left out; measures that it did not take read ``-``.
    """
    table = Table(title=f"{metrics['classes']} classes, {metrics['samples']} images", title_justify="left")
    table.add_column("row")
    for heading in ("target", "judges", "95 % interval", "images"):
        table.add_column(heading, justify="right")
    rows = {"attack": metrics, **metrics.get("reference", {})}
    for row, label in LABELS.items():
        if rows.get(row):
            target, judges = rows[row].get("target_accuracy"), rows[row].get("judge_accuracy")
            table.add_row(label, _percent(target), _percent(judges), _interval(judges), _count(judges))
    return table


def perturbation_summary_table(metrics: Mapping[str, Any]) -> Table:
    """One line an attack: surrogates and held-out models fooled, with the interval of the latter, and the distance.

    Success is counted on images that the models first got right; measures that the run did not take read ``-``.
    """
    table = Table(title=f"{metrics['classes']} classes, {metrics['images']} images", title_justify="left")
    table.add_column("attack")
    for heading in ("surrogates", "held-out", "95 % interval", "of these label kept", "perceptual distance"):
        table.add_column(heading, justify="right")
    for row, measures in {"attack": metrics, **metrics["references"]}.items():
        transfer, distance = measures["transfer_mean"], measures["perceptual_distance"]
        far = "-" if distance is None else f"{distance['value']:.4f}"
        label, kept = LABELS.get(row, row), _percent(measures.get("transfer_kept"))
        table.add_row(label, _percent(measures["white_box_mean"]), _percent(transfer), _interval(transfer), kept, far)
    return table


def _percent(rate: Mapping[str, Any] | None) -> str:
    return "-" if rate is None else f"{100 * rate['value']:.1f} %"


def _interval(rate: Mapping[str, Any] | None) -> str:
    if rate is None or rate["low"] is None:  # one class, or one picture, has no interval
        return "-"
    return f"{100 * rate['low']:.1f} to {100 * rate['high']:.1f} %"


def _count(rate: Mapping[str, Any] | None) -> str:
    return "-" if rate is None else str(rate["n"])
