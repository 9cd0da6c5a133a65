"""What an ablation's table reads of an inversion's runs: their images, each class a cluster, and the seconds spent."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from diffaudit.records import Record, RunFolder, read_records
from diffaudit.study.row_images import Measures, Reader, RowImages, of_row, tabulated

SHARES = ("judge_accuracy", "judge_accuracy_top5", "target_accuracy")
"""Measures that are shares of images; so are ``judges.<name>``."""
_MEASURES: Measures[Record] = {
    "judge_accuracy": lambda record: record.judge_accuracy,
    "judge_accuracy_top5": lambda record: record.judge_accuracy_top5,
    "target_accuracy": lambda record: float(record.target_hit),
    "overfit_gap": lambda record: record.target_hit - record.judge_accuracy,
    "identity_cosine": lambda record: record.identity_cosine,
    "knn_distance": lambda record: record.knn_distance,
    "diversity": lambda record: record.diversity,
    "embedding_variance": lambda record: record.embedding_variance,
    "perceptual_distance": lambda record: record.perceptual_distance,
    "attribute_error": lambda record: _mean((record.attribute_error or {}).values()),
    "factor_error": lambda record: record.factor_error,
}


def inversion_images(records: Mapping[int, Sequence[Record]], *, notes: list[str] | None = None) -> RowImages:
    """The images of one row from its records by seed.

    An image's number is its place in its class and seed by the number of its source, so that rows which keep all that
    they draw meet image by image on the same source. Where rows keep different candidates they meet by place alone;
    class means, on which differences, intervals and the p-value rest, do not depend on the order inside a class.
    """
    found = [record for rows in records.values() for record in rows]
    measures = dict(_MEASURES)
    judges = list(dict.fromkeys(name for record in found for name in record.judges))
    for name in judges:
        measures[f"judges.{name}"] = lambda record, name=name: float(record.judges[name].hit)  # type: ignore[misc]
    for name in dict.fromkeys(name for record in found for name in record.attribute_error or {}):
        measures[f"attribute_error.{name}"] = lambda record, name=name: (record.attribute_error or {}).get(name)  # type: ignore[misc]
    return tabulated(
        [((label, seed, place), record) for seed, rows in records.items() for label, place, record in _placed(rows)],
        measures,
        shares=(*SHARES, *(f"judges.{name}" for name in judges)),
        notes=notes,
    )


def inversion_reader(runs: Mapping[int, RunFolder]) -> Reader:
    """What reads the images of a row, all seeds together."""
    records = {seed: read_records(run.records) for seed, run in runs.items()}
    return lambda row, notes: inversion_images(of_row(records, row), notes=notes)


def inversion_seconds(metrics: Mapping[str, Any], row: str) -> float | None:
    """Training and drawing the attack's images; the other rows have no time of their own."""
    spent: Mapping[str, float] = metrics["seconds"]
    if row != "attack" or "train" not in spent:
        return None
    drawn = 1 + sum(row in metrics["reference"] for row in ("start", "oracle"))  # each row draws as many
    return spent["train"] + spent.get("sample", 0.0) / drawn


def _placed(records: Sequence[Record]) -> Iterator[tuple[int, int, Record]]:
    """Each record with its label and its place among those of its label, by source and then as it stands."""
    ordered = sorted(records, key=lambda record: (record.label, -1 if record.source is None else record.source))
    for label, members in groupby(ordered, key=lambda record: record.label):
        for place, record in enumerate(members):
            yield label, place, record


def _mean(values: Collection[float]) -> float | None:
    return sum(values) / len(values) if values else None
