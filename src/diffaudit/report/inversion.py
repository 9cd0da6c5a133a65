"""The report of an inversion: what the attack rebuilt, whom the judges recognise, and against what to read it."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffaudit.records import read_curves, read_health, read_records
from diffaudit.report.distribution import SET_MEASURES, distribution_table
from diffaudit.report.figures import accuracy_figure, curve_figures, inline_svg, save_figure
from diffaudit.report.page import Card, duration, finished_run, write_run_page, write_tables
from diffaudit.report.pictures import class_groups
from diffaudit.report.tables import Table, judges_table, naive_table, results_table
from diffaudit.report.verdict import verdict
from diffaudit.report.wording import (
    MEASURES,
    MINUS,
    attribute_measures,
    found,
    interval_of_share,
    percent,
    row_metrics,
    signed_points,
)
from diffaudit.study.health import health_lines

Json = Mapping[str, Any]

_RECOGNITION = ("judge_accuracy", "judge_accuracy_top5", "target_accuracy", "overfit_gap", "identity_cosine")


def write_inversion_report(run: Path) -> Path:
    """Write the report of an inversion; return the page's path. It shows private photographs: it is as private as they.

    Raises:
        InvalidSetting: the folder has no ``records.jsonl`` or no ``metrics.json``.
    """
    folder, metrics, manifest = finished_run(run, "invert")
    records, curves = read_records(folder.records), read_curves(folder.curves)

    results, judges, naive = results_table(metrics), judges_table(metrics), naive_table(metrics)
    sets = distribution_table(metrics)
    write_tables(folder, results, judges, naive, *([sets] if sets else []))

    accuracy = accuracy_figure(metrics, 1 / manifest["num_classes"] if manifest.get("num_classes") else None)
    drawn = {"rows": ("judge accuracy by row", accuracy), **curve_figures(curves)}
    for stem, (_, figure) in drawn.items():
        save_figure(figure, folder.path / "figures", stem)
    svgs = {stem: Markup(inline_svg(figure, title)) for stem, (title, figure) in drawn.items()}

    return write_run_page(
        folder,
        "report.html.j2",
        metrics,
        manifest,
        verdict=verdict(metrics, manifest),
        cards=list(_cards(metrics)),
        tables=[_part(results, inside=True), _part(results, inside=False)],
        sets=sets,
        more_tables=[judges, naive],
        groups=class_groups(folder.path, records),
        judges=list(metrics["judges"]),
        svgs=svgs,
        travel=_travel(metrics.get("travel") or {}),
        health=health_lines(read_health(folder.health)),
        glossary=(*MEASURES, *attribute_measures(metrics), *(SET_MEASURES if sets else ())),
    )


def _travel(travel: Json) -> str:
    """How far the training moved what it began at, in words; empty where that is not known."""
    found = {"the label embeddings": travel.get("embedding"), "the learned centres": travel.get("centres")}
    words = [
        f"{what} by {way['mean']:.2g} on average and {way['largest']:.2g} at most ({way['unit']})"
        for what, way in found.items()
        if way
    ]
    return f"From where they began the training moved {' and '.join(words)}." if words else ""


def _cards(metrics: Json) -> Iterator[Card]:
    judged = metrics["judge_accuracy"]
    yield Card("Judges recognise", percent(judged["value"]), interval_of_share(judged), "top-1, mean of the judges")
    gain = found(metrics, "versus_start")
    if gain:
        ends = "" if gain["low"] is None else f"{signed_points(gain['low'])} to {signed_points(gain['high'])}"
        yield Card("Points over the start", signed_points(gain["value"]), ends, "what optimisation adds")
    for row, note in (("oracle", "true private embedding, not an attack"), ("upper", "photographs of the people")):
        reference = found(row_metrics(metrics, row) or {}, "judge_accuracy")
        if reference:
            yield Card("Reference", percent(reference["value"]), interval_of_share(reference), note)
            break
    target = metrics["target_accuracy"]
    yield Card("Target recognises", percent(target["value"]), interval_of_share(target), "what the attack optimised")
    cosine = found(metrics, "identity_cosine")
    if cosine:
        ends = "" if cosine["low"] is None else f"{cosine['low']:.2f} to {cosine['high']:.2f}".replace("-", MINUS)
        yield Card("Identity cosine", f"{cosine['value']:.2f}".replace("-", MINUS), ends, "to the private mean")
    times = {name: seconds for name, seconds in (metrics.get("seconds") or {}).items() if seconds is not None}
    total = times.get("total", sum(times.values()))
    if total:
        yield Card("Time", duration(total), "", f"{metrics['samples']} images, {metrics['classes']} classes")


def _part(table: Table, *, inside: bool) -> Table:
    """The columns about recognition, or the others: a table as wide as a page."""
    kept = [number for number, column in enumerate(table.columns) if (column.key in _RECOGNITION) is inside]
    return replace(
        table,
        columns=tuple(table.columns[number] for number in kept),
        lines=tuple(replace(line, cells=tuple(line.cells[number] for number in kept)) for line in table.lines),
    )
