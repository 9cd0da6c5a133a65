"""Tables of a report, as data, Markdown and LaTeX (booktabs)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffaudit.report.wording import (
    DIRECTIONS,
    MEASURES,
    MINUS,
    ROWS,
    Measure,
    Row,
    attribute_measures,
    found,
    row_metrics,
)

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """A number and its interval, as text; both empty where the row has no such measure."""

    value: str = ""
    interval: str = ""

    def __str__(self) -> str:
        return f"{self.value} {self.interval}".strip()


@dataclass(frozen=True)
class Line:
    """One row: what it is, how many images and classes it holds (None where unknown), and a cell a column."""

    row: Row
    samples: int
    classes: int | None
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Table:
    """A table: its file name, a caption, columns and lines."""

    name: str
    caption: str
    columns: tuple[Measure, ...]
    lines: tuple[Line, ...]


def results_table(metrics: Json) -> Table:
    """The measures by row; columns that no row has are left out."""
    rows = [(row, measures) for row in ROWS if (measures := row_metrics(metrics, row.key))]
    columns = [
        column
        for column in (*MEASURES, *attribute_measures(metrics))
        if any(found(measures, column.key) for _, measures in rows)
    ]
    return Table(
        "results",
        "Every row is judged by the same judges. Shares in percent; intervals are 95 % bootstraps clustered by class.",
        tuple(columns),
        tuple(table_line(row, measures, columns) for row, measures in rows),
    )


def judges_table(metrics: Json) -> Table:
    """Top-1 and top-5 accuracy by judge and row."""
    rows = [(row, measures) for row in ROWS if (measures := row_metrics(metrics, row.key)) and measures.get("judges")]
    columns = [
        Measure(f"{key}.{name}", f"{name}{words}", "up", True, f"top-{places} accuracy of judge {name}")
        for key, words, places in (("judges", "", 1), ("judges_top5", ", top 5", 5))
        for name in metrics.get(key, {})
    ]
    return Table(
        "judges",
        "Accuracy by judge, of its first choice and of its first five, in percent; intervals are 95 % bootstraps "
        "clustered by class.",
        tuple(columns),
        tuple(table_line(row, measures, columns) for row, measures in rows),
    )


def naive_table(metrics: Json) -> Table:
    """The same accuracies with Wilson's interval, which is too narrow: images of a class are not independent."""
    shares = ("judge_accuracy", "judge_accuracy_top5", "target_accuracy")
    columns = [column for column in MEASURES if column.key in shares]
    lines = []
    for row in ROWS:
        measures = row_metrics(metrics, row.key)
        if measures and measures.get("judges"):
            naive = {
                column.key: {"value": value["value"], "low": value["naive_low"], "high": value["naive_high"]}
                for column in columns
                if (value := found(measures, column.key))
            }
            lines.append(table_line(row, {**measures, **naive}, columns))
    return Table(
        "naive",
        "Naive intervals (Wilson, 95 %): they take every image as independent, which images of one class are not.",
        tuple(columns),
        tuple(lines),
    )


def to_markdown(table: Table) -> str:
    """A pipe table under its caption, then the direction of every column."""
    titles = [f"{column.title} {DIRECTIONS[column.direction][0]}" for column in table.columns]
    rows = [
        [_row_title(line.row), str(line.samples), str(line.classes or "-"), *(str(cell) or "-" for cell in line.cells)]
        for line in table.lines
    ]
    notes = [f"- {column.title}: {DIRECTIONS[column.direction][1]}." for column in table.columns]
    return "\n".join([table.caption, "", pipe_table(["Row", "Images", "Classes", *titles], rows), *notes, ""])


def to_latex(table: Table) -> str:
    """A ``tabular`` with the rules of the package booktabs."""
    titles = [f"{tex(column.title)} {ARROWS[column.direction]}" for column in table.columns]
    rows = [
        [
            tex(_row_title(line.row)),
            str(line.samples),
            str(line.classes or "--"),
            *(tex_cell(cell) for cell in line.cells),
        ]
        for line in table.lines
    ]
    return booktabs(table.caption, ["Row", "Images", "Classes", *titles], rows)


def pipe_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown: the first column left, the others right.

    >>> print(pipe_table(["Row", "Images"], [["A", "3"]]), end="")
    | Row | Images |
    | --- | ---: |
    | A | 3 |
    """
    rule = ["---", *(["---:"] * (len(head) - 1))]
    return "".join(_pipes(line) + "\n" for line in (head, rule, *rows))


def booktabs(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A ``tabular`` with the rules of the package booktabs; cells are LaTeX already (:func:`tex`)."""
    lines = [
        f"% {caption}",
        rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in rows),
    ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


ARROWS = {
    "up": r"$\uparrow$",
    "down": r"$\downarrow$",
    "nearer": r"$\downarrow$\,(nearer)",
    "varied": r"$\uparrow$\,(varied)",
    "zero": r"$\to 0$",
    "fools": r"$\uparrow$",
    "known": r"$\uparrow$",
    "honest": r"$\uparrow$",
    "visible": r"$\downarrow$",
    "alike": r"$\uparrow$",
    "cost": r"$\downarrow$",
    "apart": r"$\downarrow$",
    "real": r"$\uparrow$",
    "crowded": r"$\to 1$",
    "reached": r"$\uparrow$",
}
"""The directions of measures in LaTeX."""


def table_line(row: Row, measures: Json, columns: Sequence[Measure]) -> Line:
    """A row's line: ``measures`` holds ``samples``, ``classes`` and, by key, the columns that it has."""
    cells = tuple(_cell(found(measures, column.key), column) for column in columns)
    return Line(row, measures["samples"], measures["classes"], cells)


def _cell(measure: Json | None, column: Measure) -> Cell:
    if measure is None:
        return Cell()
    interval = ""
    if measure["low"] is not None:
        interval = f"[{_number(measure['low'], column)}, {_number(measure['high'], column)}]"
    return Cell(_number(measure["value"], column), interval)


def _number(value: float, column: Measure) -> str:
    text = f"{100 * value:.1f}" if column.share else f"{value:.{column.digits}f}"
    return text.replace("-", MINUS) if float(text) else text.replace("-", "")


def _row_title(row: Row) -> str:
    return f"{row.title} ({row.warning})" if row.warning else row.title


def _pipes(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def tex_cell(cell: Cell) -> str:
    """A cell in LaTeX, its interval small."""
    if not cell.value:
        return "--"
    return tex(cell.value) + (rf" {{\scriptsize {tex(cell.interval)}}}" if cell.interval else "")


def tex(text: str) -> str:
    """Text with what LaTeX reads as a command escaped."""
    specials = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", MINUS: "$-$"}
    specials |= {character: f"\\{character}" for character in "&%$#_{}"}
    return "".join(specials.get(character, character) for character in text)
