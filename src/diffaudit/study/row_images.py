"""The images of one row of an ablation, all seeds together: a column a measure, a key an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diffaudit.records import Record
from diffaudit.study.bootstrap import Floats, Integers
from diffaudit.study.comparison import aligned

Key = tuple[int, int, int]

_MEASURES: dict[str, Callable[[Record], float | None]] = {
    "judge_accuracy": lambda record: record.judge_accuracy,
    "judge_accuracy_top5": lambda record: record.judge_accuracy_top5,
    "target_accuracy": lambda record: float(record.target_hit),
    "overfit_gap": lambda record: record.target_hit - record.judge_accuracy,
    "identity_cosine": lambda record: record.identity_cosine,
    "knn_distance": lambda record: record.knn_distance,
    "diversity": lambda record: record.diversity,
    "perceptual_distance": lambda record: record.perceptual_distance,
    "attribute_error": lambda record: _mean((record.attribute_error or {}).values()),
    "factor_error": lambda record: record.factor_error,
}
SHARES = ("judge_accuracy", "judge_accuracy_top5", "target_accuracy")
"""Measures that are shares of images; so are ``judges.<name>``. The others are means."""


@dataclass(frozen=True, eq=False)
class RowImages:
    """``keys`` (class, seed, sample) in order, and ``columns (N,)`` by measure.

    Which candidates a row keeps is its own doing, so ``sample`` is the image's rank in its class and seed. Images of
    two rows are paired by key: the classes, the seeds and the sources drawn from are then the same, and class means,
    on which differences, intervals and the p-value rest, do not depend on the order inside a class.
    """

    keys: tuple[Key, ...]
    columns: Mapping[str, Floats]

    @property
    def classes(self) -> Integers:
        """``(N,)`` class of each image."""
        return np.array([key[0] for key in self.keys], dtype=np.intp)

    @property
    def seeds(self) -> Integers:
        """``(N,)`` seed of each image."""
        return np.array([key[1] for key in self.keys], dtype=np.intp)

    def of_seeds(self, seeds: set[int]) -> RowImages:
        """The images of these seeds alone."""
        kept = np.isin(self.seeds, sorted(seeds))
        keys = tuple(key for key in self.keys if key[1] in seeds)
        return RowImages(keys, {name: column[kept] for name, column in self.columns.items()})


def row_images(records: Mapping[int, Sequence[Record]], *, notes: list[str] | None = None) -> RowImages:
    """The images of one row from its records by seed.

    A measure that some image lacks or has as NaN or infinity has no column, for a mean over the rest would be another
    measure; ``notes`` is told where some images have it.
    """
    told = [] if notes is None else notes
    images = sorted(
        (((record.label, seed, record.sample), record) for seed, found in records.items() for record in found),
        key=lambda image: image[0],
    )
    measures = dict(_MEASURES)
    for name in dict.fromkeys(name for _, record in images for name in record.judges):
        measures[f"judges.{name}"] = lambda record, name=name: float(record.judges[name].hit)  # type: ignore[misc]
    for name in dict.fromkeys(name for _, record in images for name in record.attribute_error or {}):
        measures[f"attribute_error.{name}"] = lambda record, name=name: (record.attribute_error or {}).get(name)  # type: ignore[misc]
    columns = {}
    for name, measure in measures.items():
        values = [measure(record) for _, record in images]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if values and len(known) == len(values):
            columns[name] = np.array(known, dtype=np.float64)
        elif known:
            told.append(f"{name}: measured on {len(known)} of {len(values)} images, so it is left out.")
    return RowImages(tuple(key for key, _ in images), columns)


def paired(row: RowImages, *others: RowImages) -> tuple[RowImages, ...]:
    """All rows on the seeds that all of them have, image for image in the first one's order.

    Raises:
        ValueError: in a common seed one has a (class, sample) that another lacks.
    """
    common = set.intersection(*(set(each.seeds.tolist()) for each in (row, *others)))
    first = row.of_seeds(common)
    found = [first]
    for other in others:
        part = other.of_seeds(common)
        order = aligned(first.keys, part.keys)
        found.append(RowImages(first.keys, {name: column[order] for name, column in part.columns.items()}))
    return tuple(found)


def _mean(values: Collection[float]) -> float | None:
    return sum(values) / len(values) if values else None
