"""The report of an ablation: tables, figures, one self-contained page and a README, made from its files alone."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure

from diffaudit.errors import InvalidSetting
from diffaudit.records import RunFolder, read_curves, write_atomically
from diffaudit.report.ablation_figures import ablation_frontier, rows_figure, training_figures
from diffaudit.report.ablation_layout import MODES, layout_of
from diffaudit.report.ablation_tables import RowTable, ablation_tables
from diffaudit.report.ablation_verdict import Finding, ablation_verdict
from diffaudit.report.figures import inline_svg, save_figure
from diffaudit.report.page import duration, environment
from diffaudit.report.wording import DIRECTIONS
from diffaudit.study.planned_rows import row_key, run_folder

Json = Mapping[str, Any]
Figures = dict[str, tuple[str, Figure]]
"""By file stem, each with its title."""


def write_ablation_report(folder: Path) -> Path:
    """Write ``tables/``, ``figures/``, ``report.html`` and ``README.md`` of an ablation; return the page's path.

    Raises:
        InvalidSetting: the folder has no ``ablation.json``.
    """
    path = folder / "ablation.json"
    if not path.is_file():
        raise InvalidSetting("ablation", "be a folder with an `ablation.json`", str(folder), "Run `diffaudit ablate`.")
    ablation: Json = json.loads(path.read_text(encoding="utf-8"))
    tables = [table for table in ablation_tables(ablation) if table.lines]
    for table in tables:
        write_atomically(folder / "tables" / f"{table.name}.md", table.to_markdown())
        write_atomically(folder / "tables" / f"{table.name}.tex", table.to_latex())
    headlines, trainings = _headlines(ablation), _trainings(ablation, folder)
    findings = ablation_verdict(ablation)
    for figures in (headlines, *trainings.values()):
        for stem, (_, figure) in figures.items():
            save_figure(figure, folder / "figures", stem)
    page = (
        environment()
        .get_template("ablation.html.j2")
        .render(
            ablation=ablation,
            findings=findings,
            tables=tables,
            directions=DIRECTIONS,
            headlines=_inline(headlines),
            trainings={group: _inline(figures) for group, figures in trainings.items()},
        )
    )
    write_atomically(folder / "report.html", page)
    write_atomically(folder / "README.md", _readme(ablation, findings, tables, headlines, trainings))
    return folder / "report.html"


def _headlines(ablation: Json) -> Figures:
    layout = layout_of(ablation)
    figures = {"rows": (f"{layout.headline.title} by row", rows_figure(ablation["rows"], layout))}
    found = ablation_frontier(ablation["rows"], layout.headline) if ablation["audit"] == "perturbation" else None
    return (
        figures
        if found is None
        else {"frontier": (f"{layout.headline.title} against perceptual distance", found), **figures}
    )


def _inline(figures: Figures) -> dict[str, tuple[str, Markup]]:
    return {stem: (title, Markup(inline_svg(figure, title))) for stem, (title, figure) in figures.items()}


def _trainings(ablation: Json, folder: Path) -> dict[str, Figures]:
    """By group of rows: those of each named table in a mode, and those that no table names.

    A group that is part of an earlier one is not drawn again.
    """
    trained = [row for row in ablation["rows"] if row["stability"]]
    named = {name for members in ablation["tables"].values() for name in members}
    rest = "other rows" if named else "all rows"
    tables: Mapping[str, Sequence[str]] = {
        **ablation["tables"],
        "": [row["name"] for row in trained if row["name"] not in named],
    }
    curves = {
        _key(row): [read_curves(RunFolder(run_folder(folder, _key(row), seed)).curves) for seed in row["seeds"]]
        for row in trained
    }
    drawn: list[set[str]] = []
    figures: dict[str, Figures] = {}
    for group, members in tables.items():
        for mode in dict.fromkeys(row["mode"] for row in trained):
            rows = [row for row in trained if row["mode"] == mode and row["name"] in members]
            keys = {_key(row) for row in rows}
            if keys and not any(keys <= earlier for earlier in drawn):
                drawn.append(keys)
                words = (group or rest) + (f" ({MODES[mode]})" if mode else "")
                figures[words] = training_figures({row["name"]: curves[_key(row)] for row in rows}, mode, group)
    return figures


def _key(row: Json) -> str:
    return row_key(row["name"], row["mode"])


def _readme(
    ablation: Json,
    findings: list[Finding],
    tables: list[RowTable],
    headlines: Figures,
    trainings: Mapping[str, Figures],
) -> str:
    seconds = [row["seconds"] * len(row["seeds"]) for row in ablation["rows"] if row["seconds"] is not None]
    took = f"; making the images took about {duration(sum(seconds))} in all" if seconds else ""
    lines = [
        f"# Ablation {ablation['name']}",
        "",
        f"Rows of settings in the {ablation['audit']} audit, made by `{ablation['command']}`{took}.",
        "The numbers are in [ablation.json](ablation.json), one page with everything in [report.html](report.html),",
        "each run with its images under `runs/`.",
        "",
    ]
    lines += [
        f"- {failure['row']}, seed {failure['seed']}, failed: {failure['error']}" for failure in ablation["failures"]
    ]
    lines += [f"- {note}" for note in ablation["notes"]]
    lines += ["", *(f"**{finding.what}**: {'; '.join(finding.rows)}.\n" for finding in findings)]
    for stem, (title, _) in headlines.items():
        lines += ["", f"![{title}](figures/{stem}.png)"]
    lines += [""]
    for table in tables:
        lines += [f"## {table.heading}", "", table.to_markdown()]
    for group, figures in trainings.items():
        lines += [f"## Trainings: {group}", "", *(f"- [{stem}](figures/{stem}.svg)" for stem in figures), ""]
    return "\n".join(lines)
