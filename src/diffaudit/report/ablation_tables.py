"""Tables of an ablation: what each row measured, what it gained on its baseline, and what of the claims was seen."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from diffaudit.report.tables import ARROWS, Cell, booktabs, pipe_table, tex, tex_cell
from diffaudit.report.wording import DIRECTIONS, MEASURES, MINUS, Measure

Json = Mapping[str, Any]

_BY_KEY = {measure.key: measure for measure in MEASURES}
COLUMNS = (
    _BY_KEY["judge_accuracy"],
    _BY_KEY["target_accuracy"],
    _BY_KEY["overfit_gap"],
    Measure("gap_closed", "Gap closed", "up", True, "share of the gap in judge accuracy from row start to oracle"),
    _BY_KEY["identity_cosine"],
    _BY_KEY["diversity"],
    _BY_KEY["perceptual_distance"],
    Measure("attribute_error", "Attribute error", "nearer", False, "to the source, mean of the attributes"),
    _BY_KEY["factor_error"],
)
"""What the tables show; ``ablation.json`` holds more."""

MODES = {"one_step": "one step", "rollout": "rollout", None: ""}


@dataclass(frozen=True)
class RowTable:
    """A table whose lines are rows of the ablation: a file name, a caption, titled columns, cells, and notes."""

    name: str
    caption: str
    columns: tuple[tuple[str, str], ...]
    lines: tuple[tuple[str, tuple[Cell, ...]], ...]
    notes: tuple[str, ...] = ()

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
    """All tables of ``ablation.json``: results, differences, those asked for by name, secondary tests and claims."""
    rows = ablation["rows"]
    tables = [results(rows), differences(rows, ablation["correction"])]
    for name, members in ablation["tables"].items():
        kept = [row for row in rows if row["name"] in members]
        tables += [results(kept, f"{name}-results"), differences(kept, ablation["correction"], f"{name}-differences")]
    if ablation["contrasts"]:
        tables.append(contrasts(ablation["contrasts"]))
    return [*tables, secondary(rows), claims(ablation["claims"])]


def results(rows: Sequence[Json], name: str = "results") -> RowTable:
    """Every measure of every row with its interval."""
    columns = [column for column in COLUMNS if any(row["metrics"].get(column.key) for row in rows)]
    lines = []
    for row in rows:
        cells = [_level(row["metrics"].get(column.key), column) for column in columns]
        known = [variation for variation in row["stability"].get("variation", []) if variation is not None]
        cells.append(Cell(f"{sum(known) / len(known):.2f}") if known else Cell())
        cells.append(Cell() if row["seconds"] is None else Cell(f"{row['seconds']:.0f}"))
        lines.append((title(row), tuple(cells)))
    heads = [(column.title, column.direction) for column in columns]
    return RowTable(
        name,
        "Shares in percent; intervals are 95 % bootstraps clustered by class, the seeds nested in it.",
        (*heads, ("Variation", ""), ("Seconds", "")),
        tuple(lines),
        (
            *(f"{column.title}: {column.meaning}; {DIRECTIONS[column.direction][1]}." for column in columns),
            "Variation: median over the loss terms of their coefficient of variation in the last quarter of the steps.",
            "Seconds: training and drawing of one run's images, mean over the seeds.",
        ),
    )


def differences(rows: Sequence[Json], correction: str, name: str = "differences") -> RowTable:
    """Every row minus the baseline of its mode, with the corrected p-value."""
    compared = [row for row in rows if row["versus_baseline"]]
    family = "the rows of both modes in the same column" if correction == "column" else "the whole table"
    return RowTable(
        name,
        "Row minus the baseline of its mode, paired by class and seed; shares in percentage points. p: sign-flip "
        f"permutation test of class means, corrected (Holm) over {family}.",
        tuple((column.title, column.direction) for column in _compared_columns(row["versus_baseline"] for row in rows)),
        tuple(
            (
                title(row),
                tuple(
                    _difference(row["versus_baseline"].get(column.key), column)
                    for column in _compared_columns(row["versus_baseline"] for row in rows)
                ),
            )
            for row in compared
        ),
        ("* p below 0.05 after correction and the same sign in every seed; (seeds differ): not the same sign.",),
    )


def contrasts(found: Sequence[Json]) -> RowTable:
    """The further comparisons asked for."""
    columns = _compared_columns(contrast["metrics"] for contrast in found)
    return RowTable(
        "contrasts",
        "First row minus the second, paired by class and seed; shares in percentage points; p corrected (Holm) over "
        "the contrasts.",
        tuple((column.title, column.direction) for column in columns),
        tuple(
            (
                f"{contrast['row']} against {contrast['against']}",
                tuple(_difference(contrast["metrics"].get(column.key), column) for column in columns),
            )
            for contrast in found
        ),
    )


def secondary(rows: Sequence[Json]) -> RowTable:
    """Effect sizes and the tests that are shown and not relied on, for each judge and for measures of recognition."""
    lines = []
    for row in rows:
        for key, found in row["versus_baseline"].items():
            if key in ("judge_accuracy", "target_accuracy", "identity_cosine", "factor_error") or key[:7] == "judges.":
                numbers = (found["effect_size"], found["odds_ratio"])
                cells = [Cell() if number is None else Cell(_signed(number, "{:.2f}")) for number in numbers]
                tests = (found["secondary"]["mcnemar"], found["secondary"]["wilcoxon"])
                cells += [Cell() if p is None else Cell(p_value(p)) for p in tests]
                lines.append((f"{title(row)}, {_name(key)}", tuple(cells)))
    return RowTable(
        "secondary",
        "Effect sizes, and secondary tests, not corrected: exact McNemar takes images as independent, which images of "
        "one class are not; Wilcoxon is of class means.",
        (
            ("Cohen's d of class means", ""),
            ("Odds ratio", ""),
            ("McNemar p (secondary)", ""),
            ("Wilcoxon p (secondary)", ""),
        ),
        tuple(lines),
    )


def claims(found: Sequence[Json]) -> RowTable:
    """What is said about the schemes beside what was measured."""
    lines = []
    for claim in found:
        measure = claim["measured"]
        points = claim["of"] in ("difference", "level") and claim["metric"] in ("judge_accuracy", "overfit_gap")
        share = points or claim["of"] in ("relative", "variation")
        form = partial(_written, share=share, sign="+")
        unit = " points" if points else " %" if claim["of"] in ("relative", "variation") else ""
        ends = dict.fromkeys((form(claim["low"]), form(claim["high"])))
        value = Cell() if measure is None else Cell(f"{form(measure['value'])}{unit}", _interval(measure, form))
        words = (claim["verdict"] or "not measured") + (
            f": {claim['why']}" if claim["verdict"] and claim["why"] else ""
        )
        says = claim["says"] + (f" ({claim['reading']})" if claim["reading"] else "")
        row = claim["row"] + (f" ({MODES[claim['mode']]})" if claim["mode"] else "")
        lines.append((row, (Cell(says), Cell(" to ".join(ends) + unit), value, Cell(words))))
    return RowTable(
        "claims",
        "Claims in circulation beside our measure of them, against the baseline of the same mode.",
        (("Claim", ""), ("Claimed", ""), ("Measured", ""), ("Found", "")),
        tuple(lines),
        (
            "Seen: the 95 % interval lies on the claimed side of 0 and reaches the claimed range, with one sign in all "
            "seeds. Not seen: it does not reach the range. Opposite: it lies on the other side of 0. Undecided: it "
            "holds both.",
        ),
    )


def title(row: Json) -> str:
    """A row as tables name it.

    >>> title({"name": "B", "mode": "one_step"}), title({"name": "oracle", "mode": None})
    ('B (one step)', 'oracle (not an attack)')
    """
    if row["name"] == "oracle":
        return "oracle (not an attack)"
    if row["name"] in ("upper", "lower"):
        return {"upper": "photographs of the people", "lower": "photographs of others"}[row["name"]]
    return f"{row['name']} ({MODES[row['mode']]})" if row["mode"] else str(row["name"])


def p_value(p: float) -> str:
    """A p-value as it is printed.

    >>> p_value(0.0004), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _compared_columns(comparisons: Iterable[Json]) -> list[Measure]:
    keys = {key for comparison in comparisons for key in comparison}
    return [column for column in COLUMNS if column.key in keys]


def _level(measure: Json | None, column: Measure) -> Cell:
    if measure is None:
        return Cell()
    form = partial(_written, share=column.share)
    return Cell(form(measure["value"]), _interval(measure, form))


def _difference(found: Json | None, column: Measure) -> Cell:
    if found is None:
        return Cell()
    form = partial(_written, share=column.share, sign="+")
    p = found["p_corrected"]
    star = "*" if p < 0.05 and found["same_sign"] else "" if found["same_sign"] else " (seeds differ)"
    return Cell(form(found["difference"]), f"{_interval(found, form)} p {p_value(p)}{star}".strip())


def _interval(measure: Json, form: Callable[[float], str]) -> str:
    return "" if measure["low"] is None else f"[{form(measure['low'])}, {form(measure['high'])}]"


def _written(value: float, *, share: bool, sign: str = "") -> str:
    return _signed(100 * value, f"{{:{sign}.1f}}") if share else _signed(value, f"{{:{sign}.3f}}")


def _signed(value: float, form: str) -> str:
    text = form.format(value)
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")


def _name(key: str) -> str:
    known = _BY_KEY.get(key)
    return known.title.lower() if known else f"judge {key.removeprefix('judges.')}"
