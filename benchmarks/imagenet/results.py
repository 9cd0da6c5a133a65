"""The tables of the ImageNet benchmark, from finished runs: success, distances, defences, paired comparisons."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffaudit.records import PerturbationRecord, RunFolder, read_perturbation_records
from diffaudit.report.ablation_tables import p_value
from diffaudit.report.perturbation_tables import DISTANCES, SUCCESS, attack_rows, attack_title, defence_measures
from diffaudit.report.tables import Table, pipe_table, table_line
from diffaudit.report.wording import DIRECTIONS, Measure, Row, found, points
from diffaudit.study.comparison import holm
from diffaudit.study.perturbation_comparison import PairedSuccess, paired_success
from diffaudit.study.perturbation_metrics import models_of

SECONDS = DISTANCES[-1]


@dataclass(frozen=True)
class Finished:
    """A finished run: its split, its row, its folder."""

    split: str
    row: str
    run: RunFolder

    @cached_property
    def metrics(self) -> Mapping[str, Any]:
        """Of ``metrics.json``."""
        values: Mapping[str, Any] = json.loads(self.run.metrics.read_text(encoding="utf-8"))
        return values

    @cached_property
    def records(self) -> dict[str, list[PerturbationRecord]]:
        """By row of the run: ``attack``, or a reference attack on pixels."""
        rows: dict[str, list[PerturbationRecord]] = {}
        for record in read_perturbation_records(self.run.records):
            rows.setdefault(record.row, []).append(record)
        return rows

    def lines(self) -> Iterator[tuple[Row, Mapping[str, Any]]]:
        """The attack under the row's own name, then the attacks on pixels that the run holds."""
        for row, measures in attack_rows(self.metrics):
            title = self.row if row.key == "attack" else row.title
            yield Row(row.key, title, row.note), measures


def results_page(finished: Sequence[Finished], says: Mapping[str, str]) -> str:
    """All tables in Markdown, split by split; runs are compared with the first row of their split."""
    parts = ["# ImageNet: results", "", "Written by `benchmarks/imagenet/run.py`.", ""]
    parts += [*(f"- `{name}`: {words}." for name, words in says.items()), ""]
    parts += ["The prior has seen the photographs: see README.md for what that limits.", ""]
    for split in dict.fromkeys(one.split for one in finished):
        runs = [one for one in finished if one.split == split]
        parts += [f"## {split}", "", roles(runs[0].metrics["models"]), ""]
        parts += [_markdown(table) for table in (success(runs), distances(runs), defended(runs))]
        parts += [paired(runs)]
    return "\n".join(parts)


def roles(models: Mapping[str, str]) -> str:
    """Who plays what in a split."""
    named = {"surrogates": "surrogate", "held out": "heldout", "siblings": "sibling"}
    return "; ".join(f"{title}: {', '.join(models_of(models, role)) or 'none'}" for title, role in named.items()) + "."


def success(runs: Sequence[Finished]) -> Table:
    """White box, transfer, siblings, seconds."""
    siblings = [
        Measure(f"sibling_success.{name}", f"Sibling {name} fooled", "fools", True, "a relative of a surrogate")
        for name in models_of(runs[0].metrics["models"], "sibling")
    ]
    caption = "Fooled, in percent of the pictures that a model first got right; intervals are 95 % bootstraps."
    return _table("success", caption, runs, [*SUCCESS, *siblings, SECONDS])


def distances(runs: Sequence[Finished]) -> Table:
    """How far the pictures went."""
    caption = "Distances to the clean picture, means over all pictures, failures included."
    return _table("distances", caption, runs, DISTANCES[:-1])


def defended(runs: Sequence[Finished]) -> Table:
    """Held-out models behind defences."""
    caption = "Held-out models fooled behind a defence, in percent of the pictures that they have right behind it."
    return _table("defended", caption, runs, defence_measures(runs[0].metrics))


def paired(runs: Sequence[Finished]) -> str:
    """Each row, and each attack on pixels, against the first row: transfer over the same pictures."""
    first = runs[0]
    heldout = models_of(first.metrics["models"], "heldout")
    others = [
        (one.row if row == "attack" else attack_title(row), records)
        for one in runs
        for row, records in one.records.items()
        if (one, row) != (first, "attack")
    ]
    compared = {title: paired_success(records, first.records["attack"], heldout) for title, records in others}
    corrected = holm({title: result.p for title, result in compared.items()})
    head = ["Row", "Pictures", f"Transfer minus `{first.row}`", "p", "p, Holm", "won", "lost"]
    lines = [_paired_line(title, result, corrected[title]) for title, result in compared.items()]
    caption = (
        f"Paired with `{first.row}` over the pictures that a held-out model got right; won and lost are pairs of a "
        "picture and a held-out model that one of the two alone fools."
    )
    return "\n".join([caption, "", pipe_table(head, lines)])


def _paired_line(title: str, result: PairedSuccess, p: float) -> list[str]:
    measure = {"value": result.value, "low": result.low, "high": result.high}
    return [
        title,
        str(result.images),
        points(measure),
        p_value(result.p),
        p_value(p),
        *map(str, (result.won, result.lost)),
    ]


def _table(name: str, caption: str, runs: Sequence[Finished], columns: Sequence[Measure]) -> Table:
    rows = [line for one in runs for line in one.lines()]
    kept = tuple(column for column in columns if any(found(measures, column.key) for _, measures in rows))
    return Table(name, caption, kept, tuple(table_line(row, measures, kept) for row, measures in rows))


def _markdown(table: Table) -> str:
    """The table under its caption; an arrow says where a column fools more, or shows less."""
    head = ["Row", "Pictures", *(f"{column.title} {DIRECTIONS[column.direction][0]}" for column in table.columns)]
    lines = [[line.row.title, str(line.samples), *(str(cell) or "-" for cell in line.cells)] for line in table.lines]
    return "\n".join([table.caption, "", pipe_table(head, lines)])
