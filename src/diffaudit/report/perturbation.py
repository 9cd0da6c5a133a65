"""The report of a perturbation: whom the attack fools, at what distance, and every picture before and after."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffaudit.records import read_course, read_perturbation_records
from diffaudit.report.figures import inline_svg, save_figure
from diffaudit.report.page import Card, duration, finished_run, write_run_page, write_tables
from diffaudit.report.perturbation_figures import course_figures, frontier_figure
from diffaudit.report.perturbation_pictures import GAIN, attack_groups
from diffaudit.report.perturbation_tables import (
    attacks_table,
    defences_table,
    distances_table,
    models_table,
    white_box_defences_table,
)
from diffaudit.report.perturbation_verdict import perturbation_verdict
from diffaudit.report.perturbation_wording import CLEAN, DISTANCES, KEPT, SUCCESS
from diffaudit.report.wording import DASH, found, interval_of_share, percent

Json = Mapping[str, Any]


def write_perturbation_report(run: Path) -> Path:
    """Write the report of a perturbation; return the page's path.

    Raises:
        InvalidSetting: the folder has no ``records.jsonl`` or no ``metrics.json``.
    """
    folder, metrics, manifest = finished_run(run, "perturb")
    attacks, models, distances = attacks_table(metrics), models_table(metrics), distances_table(metrics)
    behind = [defences_table(metrics), white_box_defences_table(metrics)] if metrics["defended_success"] else []
    write_tables(folder, attacks, models, distances, *behind)

    frontier = frontier_figure(metrics)
    if frontier is not None:
        save_figure(frontier, folder.path / "figures", "frontier")
    course = course_figures(read_course(folder.curves))
    for stem, (_, figure) in course.items():
        save_figure(figure, folder.path / "figures", stem)

    return write_run_page(
        folder,
        "perturbation.html.j2",
        metrics,
        manifest,
        verdict=perturbation_verdict(metrics),
        cards=list(_cards(metrics)),
        frontier="" if frontier is None else Markup(inline_svg(frontier, "transfer against perceptual distance")),
        attacks=attacks,
        models=models,
        distances=distances,
        defences=behind,
        groups=attack_groups(
            folder.path,
            read_perturbation_records(folder.records),
            metrics["models"],
            manifest.get("class_names"),
        ),
        gain=GAIN,
        course=[Markup(inline_svg(figure, title)) for title, figure in course.values()],
        glossary=(*SUCCESS, *KEPT, CLEAN, *DISTANCES),
    )


def _cards(metrics: Json) -> Iterator[Card]:
    for key, title, note in (
        ("transfer_kept", "Held-out models fooled", "in pictures that keep their label"),
        ("transfer_mean", "Held-out models fooled", "of those right on the clean picture"),
        ("white_box_mean", "Surrogates fooled", "what the attack optimised"),
    ):
        share = found(metrics, key)
        if share:
            yield Card(title, percent(share["value"]), interval_of_share(share), note)
    behind = {name: measure for name, measure in metrics["defended_success"].items() if measure}
    if behind:
        name, share = min(behind.items(), key=lambda item: item[1]["value"])
        yield Card(f"Behind {name}", percent(share["value"]), interval_of_share(share), "held-out, strongest defence")
    for key, title, digits, note in (
        ("perceptual_distance", "Perceptual distance", 4, "lower is less visible"),
        ("ssim", "SSIM", 3, "higher is less visible"),
    ):
        mean = found(metrics, key)
        if mean:
            ends = "" if mean["low"] is None else f"{mean['low']:.{digits}f}{DASH}{mean['high']:.{digits}f}"
            yield Card(title, f"{mean['value']:.{digits}f}", ends, note)
    seconds = found(metrics, "seconds_per_image")
    if seconds:
        yield Card("Time an image", duration(seconds["value"]), "", f"{metrics['images']} images")
