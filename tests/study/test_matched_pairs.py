"""Matched pairs by hand, against the binomial test, and an interval that agrees with the test it belongs to."""

import pytest
from scipy import stats

from diffaudit.study.matched_pairs import MatchedPairs, mcnemar_p, odds_ratio, odds_ratio_interval


def test_odds_ratio_by_hand() -> None:
    assert odds_ratio(9, 3) == 3.0
    assert odds_ratio(0, 0) == 1.0
    assert odds_ratio(4, 0) == 9.0
    assert odds_ratio(0, 4) == pytest.approx(1 / 9)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (4, 0), (0, 4), (9, 3), (5, 5)])
def test_mcnemar_is_the_binomial_test_of_the_pairs_that_disagree(won: int, lost: int) -> None:
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar_p(won, lost) == pytest.approx(expected)


def test_the_interval_of_the_odds_is_that_of_the_share() -> None:
    share = stats.binomtest(9, 12).proportion_ci(method="exact")
    low, high = odds_ratio_interval(9, 3)
    assert low == pytest.approx(share.low / (1 - share.low))
    assert high == pytest.approx(share.high / (1 - share.high))


def test_open_ends() -> None:
    end = 0.025 ** (1 / 5) / (1 - 0.025 ** (1 / 5))
    low, high = odds_ratio_interval(5, 0)
    assert low == pytest.approx(end)
    assert high is None
    low, high = odds_ratio_interval(0, 5)
    assert low == 0
    assert high == pytest.approx(1 / end)


@pytest.mark.parametrize("won", range(21))
def test_the_interval_agrees_with_mcnemar(won: int) -> None:
    low, high = odds_ratio_interval(won, 20 - won)
    assert low is not None
    holds_one = low <= 1 and (high is None or high >= 1)
    assert holds_one == (mcnemar_p(won, 20 - won) > 0.05)


def test_the_pairs_hold_ratio_interval_and_test() -> None:
    found = MatchedPairs.of(9, 3)
    assert (found.won, found.lost, found.odds_ratio, found.mcnemar) == (9, 3, 3.0, mcnemar_p(9, 3))
    assert (found.odds_low, found.odds_high) == odds_ratio_interval(9, 3)
