"""The images of one row of an ablation, all seeds together: a column a measure, a key an image."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from diffaudit.study.bootstrap import Floats, Integers
from diffaudit.study.comparison import aligned
from diffaudit.study.matched_pairs import MatchedPairs

Key = tuple[int, int, int] | tuple[str, int, int]


class OfRow(Protocol):
    """A record that says which row of its run it is of."""

    @property
    def row(self) -> str:
        """Such as ``attack``."""
        ...


Measured = TypeVar("Measured", bound=OfRow)
Measures = Mapping[str, Callable[[Measured], float | None]]


@dataclass(frozen=True, eq=False)
class RowImages:
    """``keys`` (cluster, seed, number) in order, and ``columns (N,)`` by measure.

    A cluster is what intervals draw: the class of an inversion, the picture of a perturbation. Images of two rows are
    paired by key.

    Attributes:
        keys: cluster, seed and number of each image.
        columns: NaN where an image does not count in a measure.
        shares: measures that are shares of images; the others are means.
        votes: by measure that is a mean of votes, the names of those votes. Rows whose votes differ (other models) are
            not compared in it. A vote that is a column too makes a matched pair of every image.
    """

    keys: tuple[Key, ...]
    columns: Mapping[str, Floats]
    shares: frozenset[str] = frozenset()
    votes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def clusters(self) -> NDArray[Any]:
        """``(N,)`` cluster of each image."""
        return np.array([key[0] for key in self.keys])

    @property
    def seeds(self) -> Integers:
        """``(N,)`` seed of each image."""
        return np.array([key[1] for key in self.keys], dtype=np.intp)

    def of_seeds(self, seeds: set[int]) -> RowImages:
        """The images of these seeds alone."""
        kept = np.isin(self.seeds, sorted(seeds))
        keys = tuple(key for key in self.keys if key[1] in seeds)
        return replace(self, keys=keys, columns={name: column[kept] for name, column in self.columns.items()})


Reader = Callable[[str, list[str]], RowImages]
"""The images of a row by its name in the records; a list is told what is left out."""


def tabulated(
    images: Sequence[tuple[Key, Measured]],
    measures: Measures[Measured],
    *,
    shares: Collection[str],
    partial: Collection[str] = (),
    counts: Callable[[Measured], bool] = lambda _: True,
    votes: Mapping[str, tuple[str, ...]] | None = None,
    notes: list[str] | None = None,
) -> RowImages:
    """The images with a column for each measure.

    In a measure that is no share, an image counts where ``counts`` says so. Of those that are ``partial``, an image
    without a value does not count either; any other that some image lacks or has as NaN or infinity has no column, for
    a mean over the rest would be another measure; ``notes`` is told where some images have it.
    """
    told = [] if notes is None else notes
    ordered = sorted(images, key=lambda image: image[0])
    columns = {}
    for name, measure in measures.items():
        asked = [name in shares or counts(found) for _, found in ordered]
        values = [measure(found) if counted else None for (_, found), counted in zip(ordered, asked, strict=True)]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if known and (name in partial or len(known) == sum(asked)):
            columns[name] = np.array([math.nan if value is None else value for value in values], dtype=np.float64)
        elif known:
            told.append(f"{name}: measured on {len(known)} of {sum(asked)} images, so it is left out.")
    return RowImages(tuple(key for key, _ in ordered), columns, frozenset(shares) & columns.keys(), votes or {})


def of_row(records: Mapping[int, Sequence[Measured]], row: str) -> dict[int, list[Measured]]:
    """The records of one row, by seed."""
    return {seed: [record for record in found if record.row == row] for seed, found in records.items()}


def paired(row: RowImages, *others: RowImages) -> tuple[RowImages, ...]:
    """All rows on the seeds that all of them have, image for image in the first one's order.

    Raises:
        ValueError: in a common seed one has an image that another lacks.
    """
    common = set.intersection(*(set(each.seeds.tolist()) for each in (row, *others)))
    first = row.of_seeds(common)
    found = [first]
    for other in others:
        part = other.of_seeds(common)
        order = aligned(first.keys, part.keys)
        columns = {name: column[order] for name, column in part.columns.items()}
        found.append(replace(part, keys=first.keys, columns=columns))
    return tuple(found)


def voted_pairs(one: RowImages, other: RowImages, measure: str) -> MatchedPairs | None:
    """The votes behind ``measure`` of two paired rows, each image and vote a pair; None where the votes are no columns.

    Pairs of which one side does not count are left out.
    """
    names = [name for name in one.votes.get(measure, ()) if name in one.columns and name in other.columns]
    if not names:
        return None
    differences = np.concatenate([one.columns[name] - other.columns[name] for name in names])
    return MatchedPairs.of(int((differences > 0).sum()), int((differences < 0).sum()))
