"""Paired comparisons of two configurations: the difference, its interval, its p-values and its size.

Two configurations attack the same classes from the same sources (or the same pictures) with the same seeds, so they are
compared pair by pair. The classes (of perturbations: the pictures) are the independent units: the test that counts
works on their means.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from diffaudit.study.bootstrap import Floats, Integers, cluster_bootstrap, finite_column, label_codes
from diffaudit.study.matched_pairs import MatchedPairs

EXACT_CLASSES = 14
"""Up to so many classes the sign-flip test counts every pattern of signs; with more it draws some."""


@dataclass(frozen=True)
class Difference:
    """A configuration minus its baseline, over the same images.

    Attributes:
        value: mean difference over images; ``low`` and ``high`` are its clustered interval (``None``: one class).
        p: :func:`sign_flip_p`; the p-value to read.
        effect_size: :func:`cohens_d` of the class means; ``None`` where it is undefined.
        pairs: the images as matched pairs of yes and no, or the pairs handed in; ``None`` where there are none.
        wilcoxon: secondary: :func:`wilcoxon_p` of the class means.
        by_seed: the mean difference of each seed; empty without seeds.
        p_corrected: ``p`` after Holm's correction over a table, once :func:`corrected` has seen the table.
    """

    value: float
    low: float | None
    high: float | None
    p: float
    effect_size: float | None
    pairs: MatchedPairs | None
    wilcoxon: float
    by_seed: dict[str, float]
    p_corrected: float | None = None

    @property
    def same_sign(self) -> bool:
        """Whether every seed's difference is strictly of one sign; False without seeds."""
        signs = {np.sign(difference) for difference in self.by_seed.values()}
        return len(signs) == 1 and signs != {0.0}

    def to_json(self) -> dict[str, Any]:
        """Return the fields and ``same_sign`` as plain Python values."""
        return asdict(self) | {"same_sign": self.same_sign}


def paired_difference(
    values: ArrayLike,
    baseline: ArrayLike,
    clusters: ArrayLike,
    seeds: ArrayLike | None = None,
    *,
    pairs: MatchedPairs | None = None,
    resamples: int = 10_000,
    level: float = 0.95,
    generator: np.random.Generator,
) -> Difference:
    """Return the mean of ``values - baseline`` with its clustered interval, tests, effect size and each seed's share.

    Shapes ``(N,), (N,), (N,), (N,)``, row for row the same (class, source, seed): :func:`aligned` gives the rows. Seeds
    are nested in classes: a drawn class brings the images of all its seeds
    (:func:`~diffaudit.study.bootstrap.resampled_means` says why it does not draw them again). ``pairs`` are handed in
    where a value is the mean of several votes, each a pair of its own; binary columns are counted without.

    Raises:
        ValueError: for values that are not finite and columns that differ in length or are empty.

    >>> found = paired_difference(
    ...     [True, True, True, True], [False, True, False, True], [0, 0, 1, 1], generator=np.random.default_rng(0)
    ... )
    >>> found.value, found.p, found.pairs.odds_ratio
    (0.5, 0.5, 5.0)
    """
    treated, control = finite_column("values", values), finite_column("baseline", baseline)
    if len(treated) != len(control):
        raise ValueError(
            f"`baseline` should have one entry per entry of `values`, {len(treated)} in all. Found {len(control)}. "
            "Use `aligned` to pair the rows."
        )
    differences = treated - control
    class_means = _means_by(label_codes("clusters", clusters, len(differences)), differences)
    interval = cluster_bootstrap(differences, clusters, resamples=resamples, level=level, generator=generator)
    low, high = interval or (None, None)
    binary = bool(np.isin(np.concatenate([treated, control]), (0.0, 1.0)).all())
    if pairs is None and binary:
        pairs = MatchedPairs.of(int((differences > 0).sum()), int((differences < 0).sum()))
    by_seed: dict[str, float] = {}
    if seeds is not None:
        means = _means_by(label_codes("seeds", seeds, len(differences)), differences)
        by_seed = dict(zip(map(str, np.unique(np.asarray(seeds))), map(float, means), strict=True))
    return Difference(
        value=float(differences.mean()),
        low=low,
        high=high,
        p=sign_flip_p(class_means, resamples=resamples, generator=generator),
        effect_size=cohens_d(class_means),
        pairs=pairs,
        wilcoxon=wilcoxon_p(class_means),
        by_seed=by_seed,
    )


def corrected(table: Mapping[str, Difference]) -> dict[str, Difference]:
    """Return the table's differences with ``p_corrected`` set by :func:`holm`: pass all the rows that are compared."""
    adjusted = holm({name: difference.p for name, difference in table.items()})
    return {name: replace(difference, p_corrected=adjusted[name]) for name, difference in table.items()}


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    r"""Return the p-values corrected for being ``m`` together, by name; whatever their dependence.

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min\left(1, (m - j + 1)\, p_{(j)}\right)

    Paper: Holm, "A Simple Sequentially Rejective Multiple Test Procedure" (1979).

    Raises:
        ValueError: for a p-value outside [0, 1], NaN included.

    >>> holm({"A": 0.01, "B": 0.04, "C": 0.5})
    {'A': 0.03, 'B': 0.08, 'C': 0.5}
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise ValueError(f"`p_values` should lie between 0 and 1. Found {p} for {name!r}.")
    if not p_values:
        return {}
    # By hand: statsmodels collects all garbage of the process at every call, a third of a second each.
    order = sorted(p_values, key=lambda name: p_values[name])
    raised = [min(1.0, (len(order) - rank) * p_values[name]) for rank, name in enumerate(order)]
    by_name = dict(zip(order, accumulate(raised, max), strict=True))
    return {name: by_name[name] for name in p_values}


def sign_flip_p(differences: ArrayLike, *, resamples: int = 10_000, generator: np.random.Generator) -> float:
    r"""Return the two-sided p-value of the sign-flip permutation test that class differences centre on 0.

    Shape ``(G,)``: the mean difference of each class. If a configuration changes nothing, each class's difference is
    as likely as its negative. With up to 14 classes all :math:`2^G` patterns of signs are counted, so the smallest
    p-value is :math:`2^{1-G}` and fewer than 6 classes cannot reach 0.05 (one class: always 1). With more,
    ``resamples`` patterns are drawn and the observed one is counted among them, :math:`(1 + \text{extreme}) / (1 +
    \text{drawn})` on either side, so that p is never 0.

    Paper: Phipson and Smyth, "Permutation P-values Should Never Be Zero" (2010, arXiv:1603.05766).

    Raises:
        ValueError: for a difference that is not finite and for no class at all.

    >>> sign_flip_p([1.0, 2.0, 3.0], generator=np.random.default_rng(0))
    0.25
    """
    column = finite_column("differences", differences)
    if len(column) == 1:
        return 1.0
    if len(column) <= EXACT_CLASSES:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(column))))
        counted = 0  # the observed pattern is among them
    else:
        signs = 2.0 * generator.integers(2, size=(resamples, len(column)), dtype=np.int8) - 1
        counted = 1
    means, observed, rounding = signs @ column, column.sum(), 1e-9 * np.abs(column).sum()
    extreme = min((means >= observed - rounding).sum(), (means <= observed + rounding).sum())
    return float(min(1.0, 2 * (counted + extreme) / (counted + len(signs))))


def cohens_d(differences: ArrayLike) -> float | None:
    r"""Return the paired Cohen's d of class differences, :math:`\bar d / s_d`, with ``G - 1`` in the deviation.

    Shape ``(G,)``; unbounded, 0 for no effect. ``None`` where it is undefined: one class, or classes that all differ
    by the same amount.

    Paper: Cohen, "Statistical Power Analysis for the Behavioral Sciences" (1988).

    >>> cohens_d([1.0, 2.0, 3.0])
    2.0
    """
    column = finite_column("differences", differences)
    if np.ptp(column) <= 1e-12 * np.abs(column).max():
        return None
    return float(column.mean() / column.std(ddof=1))


def wilcoxon_p(differences: ArrayLike) -> float:
    """Return the two-sided p-value of the Wilcoxon signed-rank test of class differences.

    Secondary. Shape ``(G,)``. Classes without a difference are dropped; where none is left the p-value is 1.

    Paper: Wilcoxon, "Individual Comparisons by Ranking Methods" (1945).

    >>> wilcoxon_p([1.0, 2.0, 3.0])
    0.25
    """
    column = finite_column("differences", differences)
    column = column[column != 0]
    return float(stats.wilcoxon(column).pvalue) if len(column) else 1.0


def aligned(keys: Sequence[Hashable], baseline_keys: Sequence[Hashable]) -> Integers:
    """Return, for every row, the baseline row of the same key, such as (class, source, seed).

    Shape ``(N,)``: index the baseline's columns with it before :func:`paired_difference`.

    Raises:
        ValueError: for a key that comes twice and for a key that one of the two lacks: a pair is never guessed.

    >>> aligned([("a", 0), ("b", 0)], [("b", 0), ("a", 0)])
    array([1, 0])
    """
    row_of = {key: row for row, key in enumerate(baseline_keys)}
    for name, found in (("keys", keys), ("baseline_keys", baseline_keys)):
        if len(set(found)) < len(found):
            twice = next(key for row, key in enumerate(found) if key in found[:row])
            raise ValueError(f"`{name}` should name each row once. Found {twice!r} twice. Add what tells them apart.")
    missing = set(keys) ^ set(row_of)
    if missing:
        raise ValueError(
            f"`keys` and `baseline_keys` should be the same set. Found {len(missing)} without a partner, such as "
            f"{min(missing, key=repr)!r}. Compare runs with the same classes, sources and seeds."
        )
    return np.array([row_of[key] for key in keys], dtype=np.intp)


def _means_by(codes: Integers, values: Floats) -> Floats:
    return np.asarray(np.bincount(codes, weights=values) / np.bincount(codes), dtype=np.float64)
