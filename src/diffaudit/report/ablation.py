"""The report of an ablation: tables, figures, one self-contained page and a README, made from its files alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from diffaudit.errors import InvalidSetting
from diffaudit.records import RunFolder, read_curves, write_atomically
from diffaudit.report.ablation_figures import rows_figure, training_figures
from diffaudit.report.ablation_tables import RowTable, ablation_tables
from diffaudit.report.figures import inline_svg, save_figure
from diffaudit.report.page import environment
from diffaudit.report.wording import DIRECTIONS

Json = Mapping[str, Any]


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
    drawn = {"rows": ("judge accuracy by row", rows_figure(ablation["rows"])), **_trainings(ablation, folder)}
    for stem, (_, figure) in drawn.items():
        save_figure(figure, folder / "figures", stem)
    page = (
        environment()
        .get_template("ablation.html.j2")
        .render(
            ablation=ablation,
            tables=tables,
            directions=DIRECTIONS,
            svgs={stem: Markup(inline_svg(figure, title)) for stem, (title, figure) in drawn.items()},
        )
    )
    write_atomically(folder / "report.html", page)
    write_atomically(folder / "README.md", _readme(ablation, tables, list(drawn)))
    return folder / "report.html"


def _trainings(ablation: Json, folder: Path) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for mode in dict.fromkeys(row["mode"] for row in ablation["rows"] if row["stability"]):
        curves = {
            row["name"]: [
                read_curves(RunFolder(folder / "runs" / _key(row) / str(seed)).curves) for seed in row["seeds"]
            ]
            for row in ablation["rows"]
            if row["mode"] == mode and row["stability"]
        }
        figures |= training_figures(curves, mode)
    return figures


def _key(row: Json) -> str:
    return f"{row['mode']}-{row['name']}" if row["mode"] else str(row["name"])


def _readme(ablation: Json, tables: list[RowTable], figures: list[str]) -> str:
    seconds = [row["seconds"] * len(row["seeds"]) for row in ablation["rows"] if row["seconds"] is not None]
    lines = [
        f"# Ablation {ablation['name']}",
        "",
        f"Made by `{ablation['command']}`; training and drawing took {sum(seconds) / 60:.0f} minutes in all.",
        "The numbers are in [ablation.json](ablation.json), one page with everything in [report.html](report.html),",
        "each run with its images under `runs/`.",
        "",
    ]
    lines += [
        f"- {failure['row']}, seed {failure['seed']}, failed: {failure['error']}" for failure in ablation["failures"]
    ]
    lines += [f"- {note}" for note in ablation["notes"]]
    lines += ["", "![Judge accuracy by row](figures/rows.png)", ""]
    for table in tables:
        lines += [f"## {table.name.capitalize()}", "", table.to_markdown()]
    lines += ["## Trainings", "", *(f"- [{stem}](figures/{stem}.svg)" for stem in figures if stem != "rows"), ""]
    return "\n".join(lines)
