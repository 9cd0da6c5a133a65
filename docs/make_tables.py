"""Writes the tables of the documents from the measured files in ``benchmarks/``: ``python docs/make_tables.py``.

A document says where with ``<!-- table: FILE NAME -->`` and ``<!-- end of table -->``; what stands between is replaced.
FILE is an ``ablation.json``, NAME one of its tables, ``rows`` for every row, ``defences`` for what is left of their
success behind each, or a table of the report. No number is copied by hand.
"""

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffaudit.report.ablation_cells import difference, level
from diffaudit.report.ablation_layout import MODES, layout_of, title
from diffaudit.report.ablation_tables import ablation_tables
from diffaudit.report.tables import pipe_table
from diffaudit.report.wording import Measure
from diffaudit.study.planned_rows import row_key

Json = Mapping[str, Any]

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted([REPOSITORY / "README.md", *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("benchmarks/*/*.md")])
MARK = "<!-- table: "
PLACE = re.compile(r"(<!-- table: (\S+) (\S+) -->\n).*?(<!-- end of table -->)", re.DOTALL)
SHOWN = {
    "inversion": ("judge_accuracy", "target_accuracy", "factor_error"),
    "perturbation": ("white_box_mean", "transfer_mean", "transfer_kept", "sibling", "perceptual_distance", "psnr"),
}
"""What a table of one mode shows of a row, beside its difference from the baseline: measures, or families of them."""

DEFENCES = ("transfer_mean", "defended")


def rewritten(page: str) -> str:
    """The page with every table in it made again."""
    if len(PLACE.findall(page)) != page.count(MARK):
        raise ValueError(f"each `{MARK}FILE NAME -->` should have its `<!-- end of table -->`. Found one without.")

    def table(place: re.Match[str]) -> str:
        begin, file, name, end = place.groups()
        ablation = json.loads((REPOSITORY / file).read_text(encoding="utf-8"))
        return f"{begin}{table_of(ablation, name)}{end}"

    return PLACE.sub(table, page)


def table_of(ablation: Json, name: str) -> str:
    """A table of ``ablation.json``: modes side by side where its rows were run in several, else a row's measures.

    What is no table of its own is one of the report's, such as `claims`, with its caption and notes.
    """
    if name == "rows":
        return _measures(ablation, None, ablation["rows"])
    if name == "defences":
        columns = _columns(ablation, DEFENCES, ablation["rows"])
        lines = [[title(row), *_levels(row, columns)] for row in ablation["rows"]]
        return pipe_table(["Row", *(column.title for column in columns)], lines)
    if name not in ablation["tables"]:
        return _of_the_report(ablation, name)
    members = ablation["tables"][name]
    rows = sorted(
        (row for row in ablation["rows"] if row["name"] in members), key=lambda row: members.index(row["name"])
    )
    modes = list(dict.fromkeys(row["mode"] for row in rows if row["mode"]))
    run = {name: {row["mode"] for row in rows if row["name"] == name} for name in members}
    if len(modes) > 1 and all(found in (set(modes), {None}) for found in run.values()):
        return _side_by_side(ablation, members, rows, modes)
    mode = max(modes, key=lambda mode: sum(mode in found for found in run.values()), default=None)
    if left := [name for name, found in run.items() if not found & {mode, None}]:
        raise ValueError(f"`{name}` should have a mode that every row of it was run in. Found no {mode} of {left}.")
    return _measures(ablation, members[0], [row for row in rows if row["mode"] in (mode, None)])


def _of_the_report(ablation: Json, name: str) -> str:
    tables = {table.name: table for table in ablation_tables(ablation)}
    if name not in tables:
        known = ", ".join(["rows", "defences", *ablation["tables"], *tables])
        raise ValueError(f"`{name}` should be one of {known}.")
    return tables[name].to_markdown()


def _side_by_side(ablation: Json, members: Sequence[str], rows: Sequence[Json], modes: Sequence[str]) -> str:
    headline = next(column for column in layout_of(ablation).columns if column.key == "judge_accuracy")
    head = ["Row", *(text for mode in modes for text in (MODES[mode], "difference from its baseline"))]
    lines = []
    for name in members:
        cells = []
        for mode in modes:
            row = next(row for row in rows if row["name"] == name and row["mode"] in (mode, None))
            compared = difference(row["versus_baseline"].get(headline.key), headline)
            cells += [str(level(row["metrics"].get(headline.key), headline)), str(compared)]
        lines.append([title({**row, "mode": None}), *cells])
    return pipe_table(head, lines)


def _measures(ablation: Json, first: str | None, rows: Sequence[Json]) -> str:
    """The measures of rows, their difference from the baseline, and from ``first`` where it was compared with them.

    Without a first row, modes are named: the rows may be of several.
    """
    columns = _columns(ablation, SHOWN[ablation["audit"]], rows)
    headline = next(column for column in columns if column.key in ("judge_accuracy", "transfer_mean"))
    against = next((row_key(row["name"], row["mode"]) for row in rows if row["name"] == first), None)
    beside = {
        contrast["row"]: contrast["metrics"].get(headline.key)
        for contrast in ablation["contrasts"]
        if contrast["against"] == against
    }
    compared: list[tuple[str, Callable[[Json], Json | None]]] = []
    if any(row["versus_baseline"] for row in rows):
        compared.append(("difference from the baseline", lambda row: row["versus_baseline"].get(headline.key)))
    if beside:
        compared.append((f"from {first}", lambda row: beside.get(row_key(row["name"], row["mode"]))))
    head = ["Row", *(column.title for column in columns), *(text for text, _ in compared)]
    lines = [
        [
            title(row if first is None else {**row, "mode": None}),
            *_levels(row, columns),
            *(str(difference(find(row), headline)) for _, find in compared),
        ]
        for row in rows
    ]
    return pipe_table(head, lines)


def _columns(ablation: Json, shown: Sequence[str], rows: Sequence[Json]) -> list[Measure]:
    """Those of the measures ``shown``, or of their families (``sibling.*``), that some row has."""
    return [
        column
        for key in shown
        for column in layout_of(ablation).columns
        if column.key.partition(".")[0] == key and any(row["metrics"].get(column.key) for row in rows)
    ]


def _levels(row: Json, columns: Sequence[Measure]) -> list[str]:
    return [str(level(row["metrics"].get(column.key), column)) for column in columns]


def main() -> None:
    """Write every page again."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := rewritten(text)) != text:
            page.write_text(new, encoding="utf-8")
            sys.stdout.write(f"{page.relative_to(REPOSITORY)}\n")


if __name__ == "__main__":
    main()
