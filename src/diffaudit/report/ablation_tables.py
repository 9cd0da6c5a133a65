"""Tables of an ablation: what each row measured, what it gained on its baseline, and what of the claims was seen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from diffaudit.report.ablation_cells import difference, interval, level, p_value, signed, written
from diffaudit.report.ablation_layout import MODES, Layout, layout_of, title
from diffaudit.report.tables import ARROWS, Cell, booktabs, pipe_table, tex, tex_cell
from diffaudit.report.wording import DIRECTIONS, Measure

Json = Mapping[str, Any]


@dataclass(frozen=True)
class RowTable:
    """A table whose lines are rows of the ablation: file name, heading, caption, titled columns, cells, and notes.

    ``detail``: whether a page shows it folded, for those who look further.
    """

    name: str
    heading: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()
    detail: bool = False

    def to_markdown(self) -> str:
        """A pipe table between its caption and its notes."""
        head = ["Row", *(f"{title} {DIRECTIONS[way][0] if way else ''}".strip() for title, way in self.columns)]
        rows = [[title, *(str(cell) or "-" for cell in cells)] for title, cells in self.lines]
        notes = "".join(f"\n- {note}" for note in self.notes)
        return f"{self.caption}\n\n{pipe_table(head, rows)}{notes}\n"

    def to_latex(self) -> str:
        """A ``tabular`` with the rules of the package booktabs."""
        head = ["Row", *(f"{tex(title)} {ARROWS[way] if way else ''}".strip() for title, way in self.columns)]
        rows = [[tex(title), *(tex_cell(cell) for cell in cells)] for title, cells in self.lines]
        return booktabs(self.caption, head, rows)


def ablation_tables(ablation: Json) -> list[RowTable]:
    """All tables of ``ablation.json``, in the order of a page.

    Those asked for by name come first, the first of them with what the columns mean; then the tables of every row are
    details.
    """
    rows, layout, correction = ablation["rows"], layout_of(ablation), ablation["correction"]
    tables: list[RowTable] = []
    for name, members in ablation["tables"].items():
        kept = [row for row in rows if row["name"] in members]
        framed = [row for row in rows if row["name"] in members or row["reference"]]
        tables += [
            results(framed, layout, f"{name}-results", name, explained=not tables),
            differences(kept, layout, correction, f"{name}-differences", f"{name}: differences"),
        ]
    every = [
        results(rows, layout, heading="Every row" if tables else "Results"),
        differences(rows, layout, correction, heading="Every row: differences" if tables else "Differences"),
    ]
    found = [contrasts(ablation["contrasts"], layout)] if ablation["contrasts"] else []
    found += [claims(ablation["claims"]), by_seed(rows, layout), secondary(rows, layout)]
    if not tables:
        return every + found
    return [*tables, *found, *(replace(table, detail=True) for table in every)]


def results(
    rows: Sequence[Json], layout: Layout, name: str = "results", heading: str = "Results", *, explained: bool = True
) -> RowTable:
    """Every measure of every row with its interval; ``explained``: with what the columns mean."""
    columns = [column for column in layout.columns if any(row["metrics"].get(column.key) for row in rows)]
    steady = [[value for value in row["stability"].get("variation", []) if value is not None] for row in rows]
    trained = any(row["stability"] for row in rows)
    lines = []
    for row, known in zip(rows, steady, strict=True):
        cells = [level(row["metrics"].get(column.key), column) for column in columns]
        if trained:
            cells.append(Cell(f"{sum(known) / len(known):.2f}") if known else Cell())
        cells.append(Cell() if row["seconds"] is None else Cell(f"{row['seconds']:.0f}"))
        lines.append((title(row), tuple(cells)))
    heads = [(column.title, str(column.direction)) for column in columns]
    heads += [("Variation", "")] if trained else []
    notes = [f"{column.title}: {column.meaning}; {DIRECTIONS[column.direction][1]}." for column in columns]
    notes += layout.notes
    if trained:
        notes.append(
            "Variation: median over the loss terms of their coefficient of variation in the last quarter of the steps."
        )
    return RowTable(
        name,
        heading[:1].upper() + heading[1:],
        f"Shares in percent; intervals are 95 % bootstraps clustered by {layout.cluster}, the seeds nested in it.",
        (*heads, ("Seconds", "")),
        tuple(lines),
        (*notes, f"Seconds: {layout.seconds}, median over the seeds.") if explained else (),
    )


def differences(
    rows: Sequence[Json], layout: Layout, correction: str, name: str = "differences", heading: str = "Differences"
) -> RowTable:
    """Every row minus its baseline, with the corrected p-value."""
    compared = [row for row in rows if row["versus_baseline"]]
    columns = _compared_columns(layout, (row["versus_baseline"] for row in rows))
    family = layout.family if correction == "column" else "the whole table"
    return RowTable(
        name,
        heading[:1].upper() + heading[1:],
        f"Row minus {layout.baseline}, paired by {layout.cluster} and seed; shares in percentage points. p: sign-flip "
        f"permutation test of {layout.cluster} means, corrected (Holm) over {family}.",
        tuple((column.title, column.direction) for column in columns),
        tuple(
            (title(row), tuple(difference(row["versus_baseline"].get(column.key), column) for column in columns))
            for row in compared
        ),
        ("* p below 0.05 after correction and the same sign in every seed; (seeds differ): not the same sign.",),
    )


def contrasts(found: Sequence[Json], layout: Layout) -> RowTable:
    """The further comparisons asked for."""
    columns = _compared_columns(layout, (contrast["metrics"] for contrast in found))
    return RowTable(
        "contrasts",
        "Contrasts",
        f"First row minus the second, paired by {layout.cluster} and seed; shares in percentage points; p corrected "
        "(Holm) over the contrasts.",
        tuple((column.title, column.direction) for column in columns),
        tuple(
            (
                f"{contrast['row']} against {contrast['against']}",
                tuple(difference(contrast["metrics"].get(column.key), column) for column in columns),
            )
            for contrast in found
        ),
    )


def by_seed(rows: Sequence[Json], layout: Layout) -> RowTable:
    """What each seed by itself says of every row's difference: a claim needs the same sign in all."""
    compared = [row for row in rows if row["versus_baseline"] and len(row["seeds"]) > 1]
    columns = _compared_columns(layout, (row["versus_baseline"] for row in compared))
    lines = []
    for row in compared:
        cells = []
        for column in columns:
            found = row["versus_baseline"].get(column.key)
            form = partial(written, share=column.share, digits=column.digits, sign="+")
            cells.append(Cell(", ".join(form(difference) for difference in found["by_seed"])) if found else Cell())
        lines.append((title(row), tuple(cells)))
    return RowTable(
        "by-seed",
        "Seed by seed",
        f"Row minus {layout.baseline}, seed by seed; shares in percentage points.",
        tuple((column.title, column.direction) for column in columns),
        tuple(lines),
        detail=True,
    )


def secondary(rows: Sequence[Json], layout: Layout) -> RowTable:
    """Effect sizes and the tests that are shown and not relied on, for measures of recognition."""
    lines = []
    for row in rows:
        for key, words in layout.recognition:
            found = row["versus_baseline"].get(key)
            if found:
                effect, odds = found["effect_size"], found["odds_ratio"]
                cells = [
                    Cell() if effect is None else Cell(signed(effect, "{:.2f}")),
                    Cell() if odds is None else Cell(f"{odds:.2f}", _odds_interval(found)),
                ]
                tests = (found["secondary"]["mcnemar"], found["secondary"]["wilcoxon"])
                cells += [Cell() if p is None else Cell(p_value(p)) for p in tests]
                lines.append((f"{title(row)}, {words}", tuple(cells)))
    return RowTable(
        "secondary",
        "Effect sizes and secondary tests",
        f"Effect sizes, and secondary tests, not corrected: exact McNemar, and the interval of the odds, take "
        f"{layout.pairs}; Wilcoxon is of {layout.cluster} means.",
        (
            (f"Cohen's d of {layout.cluster} means", ""),
            ("Odds ratio", ""),
            ("McNemar p (secondary)", ""),
            ("Wilcoxon p (secondary)", ""),
        ),
        tuple(lines),
        detail=True,
    )


def claims(found: Sequence[Json]) -> RowTable:
    """What is said about the schemes beside what was measured."""
    lines = []
    for claim in found:
        measure = claim["measured"]
        points = claim["of"] in ("difference", "level") and claim["metric"] in ("judge_accuracy", "overfit_gap")
        share = points or claim["of"] in ("relative", "variation")
        form = partial(written, share=share, sign="+")
        unit = " points" if points else " %" if claim["of"] in ("relative", "variation") else ""
        ends = dict.fromkeys((form(claim["low"]), form(claim["high"])))
        value = Cell() if measure is None else Cell(f"{form(measure['value'])}{unit}", interval(measure, form))
        words = (claim["verdict"] or "not measured") + (
            f": {claim['why']}" if claim["verdict"] and claim["why"] else ""
        )
        says = claim["says"] + (f" ({claim['reading']})" if claim["reading"] else "")
        row = claim["row"] + (f" ({MODES[claim['mode']]})" if claim["mode"] else "")
        lines.append((row, (Cell(says), Cell(" to ".join(ends) + unit), value, Cell(words))))
    return RowTable(
        "claims",
        "Claims in circulation",
        "Claims in circulation beside our measure of them, against the baseline of the same mode.",
        (("Claim", ""), ("Claimed", ""), ("Measured", ""), ("Found", "")),
        tuple(lines),
        (
            "Seen: the 95 % interval lies on the claimed side of 0 and reaches the claimed range, with one sign in all "
            "seeds. Not seen: it does not reach the range. Opposite: it lies on the other side of 0. Undecided: it "
            "holds both.",
        ),
    )


def _compared_columns(layout: Layout, comparisons: Iterable[Json]) -> list[Measure]:
    keys = {key for comparison in comparisons for key in comparison}
    return [column for column in layout.columns if column.key in keys]


def _odds_interval(found: Json) -> str:
    low, high = found["odds_low"], found["odds_high"]
    return "" if low is None else f"[{low:.2f}, {'inf)' if high is None else f'{high:.2f}]'}"
