"""Matched pairs of yes and no: how many each side won alone, the odds, their interval, and the exact test."""

from __future__ import annotations

from dataclasses import dataclass

from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint


@dataclass(frozen=True)
class MatchedPairs:
    """What the pairs of two configurations say.

    Attributes:
        won: pairs that the configuration alone won; ``lost``: that the baseline alone won.
        odds_ratio: :func:`odds_ratio`; ``odds_low`` and ``odds_high`` are its interval (:func:`odds_ratio_interval`).
        mcnemar: secondary: :func:`mcnemar_p`.
    """

    won: int
    lost: int
    odds_ratio: float
    odds_low: float | None
    odds_high: float | None
    mcnemar: float

    @classmethod
    def of(cls, won: int, lost: int) -> MatchedPairs:
        """Of the pairs that differ.

        >>> MatchedPairs.of(6, 2).odds_ratio
        3.0
        """
        return cls(won, lost, odds_ratio(won, lost), *odds_ratio_interval(won, lost), mcnemar_p(won, lost))


def odds_ratio(won: int, lost: int) -> float:
    """Return the odds ratio of matched pairs: pairs won alone by the configuration over pairs won by the baseline.

    In ``(0, inf)``, 1 for no effect. Pairs that agree do not count. Where either count is 0, one half is added to both
    (Haldane 1956; Anscombe 1956), so that the ratio stays finite: read it with its counts.

    >>> odds_ratio(6, 2), odds_ratio(2, 0)
    (3.0, 5.0)
    """
    return won / lost if won and lost else (won + 0.5) / (lost + 0.5)


def odds_ratio_interval(won: int, lost: int, *, level: float = 0.95) -> tuple[float | None, float | None]:
    r"""Return the exact interval of the odds ratio of matched pairs; None for an end that has no number.

    Of the ``won + lost`` pairs that differ, the share won has Clopper and Pearson's interval; each end :math:`p` gives
    the odds :math:`p / (1 - p)`. With no pair that differs there is no interval, with none lost the upper end is
    infinite: None. It holds 1 exactly where the exact McNemar test at the same level does not reject, and takes pairs
    as independent as that test does.

    Paper: Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial"
    (1934).

    >>> odds_ratio_interval(0, 0)
    (None, None)
    """
    if won + lost == 0:
        return None, None
    low, high = (float(end) for end in proportion_confint(won, won + lost, alpha=1 - level, method="beta"))
    return low / (1 - low), None if lost == 0 else high / (1 - high)


def mcnemar_p(won: int, lost: int) -> float:
    """Return the two-sided p-value of the exact McNemar test: binomial over the pairs that disagree.

    Secondary, for it takes pairs as independent, which images of one class, or models that see one picture, are not.

    Paper: McNemar, "Note on the Sampling Error of the Difference Between Correlated Proportions or Percentages" (1947).

    >>> mcnemar_p(4, 0)
    0.125
    """
    return float(mcnemar([[0, won], [lost, 0]], exact=True).pvalue)
