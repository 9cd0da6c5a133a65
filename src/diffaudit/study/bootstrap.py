"""The bootstrap clustered by class: how far a mean over images would move with other classes.

Images of one class share the class, the label embedding and often the source, so they are not independent: an interval
that counts every image as a trial is too narrow. Classes are independent, so they are what is resampled. Perturbations
hand their pictures over as the "classes": a picture then comes with all its seeds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_WEIGHTS_AT_ONCE = 4_000_000
"""Entries of a slab of draws: 32 MB."""


def cluster_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    generator: np.random.Generator,
) -> tuple[float, float] | None:
    r"""Return the ends of the interval of the mean over images, whole classes resampled; ``None`` for one class.

    Shapes ``(N,), (N,), (N,)``. The ends are the expanded percentiles (:func:`expanded_percentiles`) of
    :func:`resampled_means`. One class says nothing about other classes, so it has no interval: ``None``, never a width
    of zero. Equal values everywhere do give a width of zero; :func:`diffaudit.study.statistics.rate` knows better.

    Paper: Efron, "Bootstrap Methods: Another Look at the Jackknife" (1979).

    Raises:
        ValueError: for a value that is not finite, columns that differ in length or are empty, ``resamples`` below 1
            or ``level`` outside (0, 1).

    >>> cluster_bootstrap([0.0, 0.0, 1.0, 1.0], [3, 3, 5, 5], generator=np.random.default_rng(0))
    (0.0, 1.0)
    """
    column = finite_column("values", values)
    classes = len(np.unique(label_codes("clusters", clusters, len(column))))
    if classes < 2:
        return None
    means = resampled_means(column, clusters, seeds, resamples=resamples, generator=generator)
    return expanded_percentiles(means, classes, level=level)


def resampled_means(
    values: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    generator: np.random.Generator,
) -> Floats:
    r"""Return the mean of every column in each of ``resamples`` draws of whole classes with replacement.

    Shapes ``(N,), (N,), (N,) -> (R,)`` or ``(N, K), (N,), (N,) -> (R, K)``; the columns of one draw hold the same
    images. With class sums :math:`S_g`, image counts :math:`n_g` and how often each class was drawn, :math:`W_{rg}`:

    .. math:: m_r = \frac{\sum_g W_{rg} S_g}{\sum_g W_{rg} n_g}

    Without ``seeds`` an image goes where its class goes, the images of every seed with it, and this alone has the right
    width, whatever the dependence inside a class. With ``seeds`` each drawn class then draws its own seeds with
    replacement. The noise between seeds counts twice (once in the class mean, once in the second draw), so the interval
    errs on the wide side, by less than a factor of the square root of 2: of "95 %" intervals of a paired difference
    with three seeds 97 to 99 % hold the truth, against 94 to 96 % without (the slow tests simulate both). Neither can
    see a seed that helps or harms *all* classes at once: list each seed's result beside the interval.

    Paper: Davison and Hinkley, "Bootstrap Methods and their Application" (1997), section 3.8.

    Raises:
        ValueError: for a value that is not finite, columns that differ in length or are empty, ``resamples`` below 1.

    >>> resampled_means([1.0, 1.0, 1.0], ["a", "a", "b"], resamples=2, generator=np.random.default_rng(0))
    array([1., 1.])
    """
    table = _finite("values", np.asarray(values, dtype=np.float64))
    columns = table.reshape(len(table), -1)
    if resamples < 1:
        raise ValueError(f"`resamples` should be a positive integer. Found {resamples}. 10,000 is usual.")
    class_of_image = label_codes("clusters", clusters, len(columns))
    seed_of_image = np.zeros_like(class_of_image) if seeds is None else label_codes("seeds", seeds, len(columns))
    pairs, cell_of_image = np.unique(class_of_image * (seed_of_image.max() + 1) + seed_of_image, return_inverse=True)
    class_of_cell = pairs // (seed_of_image.max() + 1)
    counts = np.bincount(cell_of_image).astype(np.float64)
    sums = np.stack([np.bincount(cell_of_image, weights=column) for column in columns.T], axis=1)
    means = [(weights @ sums) / (weights @ counts)[:, None] for weights in _draws(class_of_cell, resamples, generator)]
    return np.concatenate(means).reshape(resamples, *table.shape[1:])


def expanded_percentiles(means: Floats, classes: int, *, level: float = 0.95) -> tuple[float, float]:
    r"""Return the two percentiles of ``means`` that make an interval, moved outward to allow for few classes.

    Shape ``(R,)``. Plain percentiles lie too near each other when classes are few (with 10 classes a "95 %" interval
    covers about 90 %), because resampling divides by :math:`G` where it should by :math:`G - 1`, and takes a normal
    quantile where a Student quantile is due. For :math:`G` classes the lower one is taken at

    .. math:: \alpha' = \Phi\left(\sqrt{\tfrac{G}{G-1}}\; t_{G-1}^{-1}(\alpha)\right), \quad
        \alpha = \tfrac{1 - \mathrm{level}}{2}

    and the upper one at :math:`1 - \alpha'`; as :math:`G` grows they become the plain percentiles.

    Paper: Hesterberg, "What Teachers Should Know about the Bootstrap: Resampling in the Undergraduate Statistics
    Curriculum" (2014, arXiv:1411.5279).

    Raises:
        ValueError: for ``level`` outside (0, 1) or fewer than two classes.

    >>> low, high = expanded_percentiles(np.linspace(0, 1, 1001), 10)
    >>> round(low, 4), round(high, 4)
    (0.0086, 0.9914)
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` should lie between 0 and 1. Found {level}. 0.95 is usual.")
    if classes < 2:
        raise ValueError(f"`classes` should be at least 2. Found {classes}. One class has no interval.")
    tail = stats.norm.cdf(np.sqrt(classes / (classes - 1)) * stats.t.ppf((1 - level) / 2, classes - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def finite_column(name: str, values: ArrayLike) -> Floats:
    """Return ``values`` as floats ``(N,)``; refuse an empty column, another shape, and what is not finite."""
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"`{name}` should be one column, one value per image. Found shape {column.shape}.")
    return _finite(name, column)


def label_codes(name: str, labels: ArrayLike, rows: int) -> Integers:
    """Return ``labels`` (integers or strings) as codes ``(N,)``; refuse a column that has not ``rows`` entries."""
    array: NDArray[Any] = np.asarray(labels)
    if array.shape != (rows,):
        raise ValueError(f"`{name}` should have one entry per image, {rows} in all. Found shape {array.shape}.")
    return np.unique(array, return_inverse=True)[1]


def _finite(name: str, values: Floats) -> Floats:
    if values.size == 0:
        raise ValueError(f"`{name}` should hold at least one image. Found none. Check which records were selected.")
    bad = np.argwhere(~np.isfinite(values))
    if len(bad):
        raise ValueError(
            f"`{name}` should hold finite numbers. Found {values[tuple(bad[0])]} in row {bad[0][0]} "
            f"({len(bad)} such in all). Leave those images out and say so, or measure them again."
        )
    return values


def _draws(class_of_cell: Integers, resamples: int, generator: np.random.Generator) -> Iterable[Floats]:
    """How often each (class, seed) cell was drawn, ``(rows, cells)`` at a time, ``resamples`` rows in all.

    Many measures of the same images, each with a generator of the same seed, ask for the same draws, and to make them
    costs ten times what it costs to use them: the last four are kept, each of 32 MB at most. Larger ones are made anew.
    """
    bits = generator.bit_generator
    if not isinstance(bits, np.random.PCG64) or resamples * len(class_of_cell) > _WEIGHTS_AT_ONCE:
        return _made(class_of_cell, resamples, generator)
    weights, after = _kept(tuple(class_of_cell.tolist()), resamples, json.dumps(bits.state))
    bits.state = after
    return [weights]


@lru_cache(maxsize=4)
def _kept(class_of_cell: tuple[int, ...], resamples: int, state: str) -> tuple[Floats, Any]:
    """The draws of a generator in ``state``, in one slab, and its state after them."""
    bits = np.random.PCG64()
    bits.state = json.loads(state)
    (weights,) = _made(np.array(class_of_cell), resamples, np.random.Generator(bits))
    weights.flags.writeable = False
    return weights, bits.state


def _made(class_of_cell: Integers, resamples: int, generator: np.random.Generator) -> Iterator[Floats]:
    seeds_of_class = np.bincount(class_of_cell)
    classes, first_cell = len(seeds_of_class), np.cumsum(seeds_of_class) - seeds_of_class
    slab = max(1, _WEIGHTS_AT_ONCE // len(class_of_cell))
    for begin in range(0, resamples, slab):
        rows = min(slab, resamples - begin)
        drawn = generator.integers(classes, size=(rows, classes)) + classes * np.arange(rows)[:, None]
        class_weights = np.bincount(drawn.ravel(), minlength=rows * classes).reshape(rows, classes)
        weights = np.empty((rows, len(class_of_cell)))
        for size in np.unique(seeds_of_class):
            members = np.flatnonzero(seeds_of_class == size)
            cells = first_cell[members][:, None] + np.arange(size)
            if size == 1:  # nothing to draw inside the class
                weights[:, cells[:, 0]] = class_weights[:, members]
                continue
            # A class drawn w times draws its s seeds w times over, independently: one multinomial of w * s trials.
            weights[:, cells] = generator.multinomial(class_weights[:, members] * size, np.full(size, 1 / size))
        yield weights
