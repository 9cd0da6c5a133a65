"""Two runs over the same pictures: differences by hand, and intervals that agree with the test they belong to."""

import json

import pytest
from scipy import stats

from diffaudit.errors import InvalidSetting
from diffaudit.records import PerturbationRecord
from diffaudit.study.comparison import mcnemar_p
from diffaudit.study.perturbation_comparison import odds_ratio_interval, paired_success

from .conftest import perturbed

HELDOUT = ["one", "two"]


def run(*votes: tuple[str, str]) -> list[PerturbationRecord]:
    return [perturbed(i, {"one": one, "two": two}) for i, (one, two) in enumerate(votes)]


BASELINE = run(("rk", "rk"), ("rf", "rk"), ("rk", "wf"), ("wf", "wf"), ("rf", "rf"))
TREATED = run(("rf", "rf"), ("rf", "rf"), ("rf", "wk"), ("wk", "wk"), ("rk", "rf"))


def test_differences_by_hand() -> None:
    found = paired_success(TREATED, BASELINE, HELDOUT)
    # By picture: 1 - 0, 1 - 0.5, 1 - 0; picture 3 was right nowhere; 0.5 - 1.
    assert found.images == 4
    assert found.value == pytest.approx((1 + 0.5 + 1 - 0.5) / 4)
    assert (found.won, found.lost) == (4, 1)
    assert found.odds_ratio == 4
    assert found.mcnemar == pytest.approx(mcnemar_p(4, 1))
    # Of the 16 patterns of signs of (1, 0.5, 1, -0.5), 6 have a mean at least as far from 0 as 0.5.
    assert found.p == pytest.approx(6 / 16)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()


def test_order_does_not_matter() -> None:
    assert paired_success(TREATED[::-1], BASELINE, HELDOUT).value == paired_success(TREATED, BASELINE, HELDOUT).value


def test_against_itself_nothing_differs() -> None:
    found = paired_success(TREATED, TREATED, HELDOUT)
    assert (found.value, found.p, found.won, found.lost, found.odds_low, found.odds_high) == (0, 1, 0, 0, None, None)


def test_models_that_are_not_named_do_not_count() -> None:
    assert paired_success(TREATED, BASELINE, ["two"]).images == 3


def test_other_pictures_are_refused() -> None:
    with pytest.raises(ValueError, match="without a partner"):
        paired_success(TREATED, BASELINE[:-1], HELDOUT)
    with pytest.raises(InvalidSetting, match="another vote on 'face-0000'"):
        paired_success(TREATED, run(("wk", "rk"), *([("rk", "rk")] * 4)), HELDOUT)


def test_without_a_held_out_model_there_is_nothing_to_compare() -> None:
    with pytest.raises(InvalidSetting, match="`models` should name at least one held-out model"):
        paired_success(TREATED, BASELINE, [])
    wrong = run(("wf", "wf"))
    with pytest.raises(InvalidSetting, match="`models` should be right on at least one clean picture"):
        paired_success(wrong, wrong, HELDOUT)


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
