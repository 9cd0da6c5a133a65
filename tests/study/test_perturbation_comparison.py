"""Two runs over the same pictures: differences by hand, pictures as what is drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest

from diffaudit.errors import InvalidSetting
from diffaudit.records import PerturbationRecord
from diffaudit.study.bootstrap import cluster_bootstrap
from diffaudit.study.matched_pairs import MatchedPairs
from diffaudit.study.perturbation_comparison import paired_success

from ..conftest import perturbed

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
    assert found.pairs == MatchedPairs.of(4, 1)
    # Of the 16 patterns of signs of (1, 0.5, 1, -0.5), 6 have a mean at least as far from 0 as 0.5.
    assert found.p == pytest.approx(6 / 16)
    assert json.loads(json.dumps(found.to_json(), allow_nan=False)) == found.to_json()


def test_order_does_not_matter() -> None:
    assert paired_success(TREATED[::-1], BASELINE, HELDOUT).value == paired_success(TREATED, BASELINE, HELDOUT).value


def test_against_itself_nothing_differs() -> None:
    found = paired_success(TREATED, TREATED, HELDOUT)
    assert (found.value, found.p, found.pairs) == (0, 1, MatchedPairs.of(0, 0))


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


def test_pictures_of_one_label_are_as_independent_as_any() -> None:
    """By picture: 1 - 0, 1 - 0.5, 1 - 0, 0.5 - 1. One label would have no interval, were labels what is drawn."""
    one, other = ([replace(record, label=3) for record in found] for found in (TREATED, BASELINE))
    found = paired_success(one, other, HELDOUT, seed=2, resamples=500)
    differences = [1, 0.5, 1, -0.5]
    expected = cluster_bootstrap(differences, range(4), resamples=500, generator=np.random.default_rng(2))
    assert (found.low, found.high) == expected
    assert found.p == pytest.approx(6 / 16)
