"""Rates and means over images, each with its interval clustered by class: what tables print and figures draw."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from statsmodels.stats.proportion import proportion_confint

from diffaudit.study.bootstrap import (
    Floats,
    cluster_bootstrap,
    expanded_percentiles,
    finite_column,
    label_codes,
    resampled_means,
)


@dataclass(frozen=True)
class Value:
    """A mean with its clustered interval; ``low`` and ``high`` are ``None`` where no interval can be given."""

    value: float
    low: float | None
    high: float | None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return asdict(self)


@dataclass(frozen=True)
class Rate:
    """A share of ``n`` images with its clustered interval and, for comparison alone, the naive one.

    ``low`` and ``high`` are ``None`` where no interval can be given. ``naive_low`` and ``naive_high`` are Wilson's
    interval, which takes every image as independent: print it as naive or not at all.
    """

    value: float
    low: float | None
    high: float | None
    n: int
    naive_low: float
    naive_high: float

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return asdict(self)


def value(
    values: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    generator: np.random.Generator,
) -> Value:
    """Return the mean over images and its interval clustered by class.

    Shapes ``(N,), (N,), (N,)``. A statistic that is a difference of two columns of the same images (the overfit gap:
    target minus judge) is the value of that difference. The interval is
    :func:`~diffaudit.study.bootstrap.cluster_bootstrap`'s; one class has none (``None``).

    Raises:
        ValueError: for whatever ``cluster_bootstrap`` refuses: NaN first of all.

    >>> value([0.0, 0.5, 1.0], ["a", "a", "a"], generator=np.random.default_rng(0))
    Value(value=0.5, low=None, high=None)
    """
    column = finite_column("values", values)
    interval = cluster_bootstrap(column, clusters, seeds, resamples=resamples, level=level, generator=generator)
    low, high = interval or (None, None)
    return Value(float(column.mean()), low, high)


def rate(
    successes: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    generator: np.random.Generator,
) -> Rate:
    """Return the share of successes, its interval clustered by class, and Wilson's interval as the naive one.

    Shapes ``(N,), (N,), (N,)``; ``successes`` holds booleans (or 0 and 1). The interval is
    :func:`~diffaudit.study.bootstrap.cluster_bootstrap`'s, with two exceptions. One class has none (``None``). And
    where every image of every class succeeds, or none does, resampling sees no spread and would answer ``[1, 1]``:
    the interval is then Wilson's with the *classes* as the trials, which holds however much the images of a class
    agree.

    Paper: Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927).

    Raises:
        ValueError: for values other than 0 and 1, and for whatever ``cluster_bootstrap`` refuses.

    >>> found = rate([True, True, True, False], ["a", "a", "b", "b"], generator=np.random.default_rng(0))
    >>> found.value, found.low, found.high, found.n
    (0.75, 0.5, 1.0, 4)
    """
    column = _binary("successes", successes)
    share = float(column.mean())
    interval = cluster_bootstrap(column, clusters, seeds, resamples=resamples, level=level, generator=generator)
    if interval is not None and share in (0.0, 1.0):
        classes = label_codes("clusters", clusters, len(column)).max() + 1
        interval = _wilson(share * classes, classes, level)
    low, high = interval or (None, None)
    naive_low, naive_high = _wilson(column.sum(), len(column), level)
    return Rate(share, low, high, len(column), naive_low, naive_high)


def share_of_gap(
    values: ArrayLike,
    start: ArrayLike,
    ceiling: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    generator: np.random.Generator,
) -> Value:
    r"""Return the share of the gap from ``start`` to ``ceiling`` that ``values`` closes, with its clustered interval.

    .. math:: \frac{\bar v - \bar s}{\bar c - \bar s}

    Shapes ``(N,)`` each, row for row the same (class, source, seed). 0 is no better than the start, 1 reaches the
    ceiling; neither bounds it. The three means are resampled together. Where the interval of the gap itself reaches 0
    the ratio's would be unbounded (Fieller, "Some Problems in Interval Estimation", 1954), and ``low`` and ``high``
    are ``None``, as they are with one class.

    Raises:
        ValueError: where the ceiling is not above the start, and for whatever ``cluster_bootstrap`` refuses.

    >>> share_of_gap([0.5, 0.5], [0.25, 0.25], [0.75, 0.75], [3, 3], generator=np.random.default_rng(0))
    Value(value=0.5, low=None, high=None)
    """
    columns = _stack(values=values, start=start, ceiling=ceiling)
    reached, begun, top = columns.mean(axis=0)
    if top <= begun:
        raise ValueError(
            f"`ceiling` should have a larger mean than `start`. Found {top:g} and {begun:g}. "
            "There is no gap to take a share of: report the difference from the start instead."
        )
    share = float((reached - begun) / (top - begun))
    classes = label_codes("clusters", clusters, len(columns)).max() + 1
    if classes < 2:
        return Value(share, None, None)
    means = resampled_means(columns, clusters, seeds, resamples=resamples, generator=generator)
    gaps = means[:, 2] - means[:, 1]
    if expanded_percentiles(gaps, classes, level=level)[0] <= 0:
        return Value(share, None, None)
    # A rare draw may still have a gap of exactly 0; where it reaches the percentiles there is no finite interval.
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = expanded_percentiles((means[:, 0] - means[:, 1]) / gaps, classes, level=level)
    return Value(share, low, high) if np.isfinite([low, high]).all() else Value(share, None, None)


def relative_change(
    values: ArrayLike,
    baseline: ArrayLike,
    clusters: ArrayLike,
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    generator: np.random.Generator,
) -> Value | None:
    r"""Return the change from the baseline as a share of it, with its clustered interval; ``None`` where it has none.

    .. math:: \frac{\bar v - \bar b}{\bar b}

    Shapes ``(N,)`` each, row for row the same (class, source, seed). It is :func:`share_of_gap` from the baseline to
    its double, so a baseline whose own interval reaches 0 leaves ``low`` and ``high`` open, and one that is not above 0
    has no share at all.

    >>> relative_change([3.0, 3.0], [2.0, 2.0], ["a", "b"], generator=np.random.default_rng(0))
    Value(value=0.5, low=0.5, high=0.5)
    """
    base = finite_column("baseline", baseline)
    if base.mean() <= 0:
        return None
    return share_of_gap(values, base, 2 * base, clusters, resamples=resamples, level=level, generator=generator)


def _stack(**columns: ArrayLike) -> Floats:
    found = {name: finite_column(name, column) for name, column in columns.items()}
    lengths = {name: len(column) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Columns should have one row per image, the same in each. Found lengths {lengths}.")
    return np.stack(list(found.values()), axis=1)


def _binary(name: str, values: ArrayLike) -> Floats:
    column = finite_column(name, values)
    other = column[(column != 0) & (column != 1)]
    if len(other):
        raise ValueError(f"`{name}` should hold booleans, or 0 and 1. Found {other[0]:g}. `value` takes fractions.")
    return column


def _wilson(successes: float, trials: int, level: float) -> tuple[float, float]:
    low, high = proportion_confint(successes, trials, alpha=1 - level, method="wilson")
    return float(low), float(high)
