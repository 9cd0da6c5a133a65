import math
from typing import Any

import pytest
import torch

from diffaudit.errors import InvalidSetting
from diffaudit.weighting import Staged, StageWeights, handover_fraction

STAGES = [
    StageWeights(0, {"prior": 0.3, "cls": 1.0}),
    StageWeights(10, {"prior": 1.5, "id": 0.8}),
    StageWeights(20, {"prior": 1.5, "id": 0.8, "cls": 2.0}),
]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, {"prior": 0.3, "cls": 1.0, "id": 0.0}),
        (9, {"prior": 0.3, "cls": 1.0, "id": 0.0}),
        (10, {"prior": 0.3, "cls": 1.0, "id": 0.0}),
        (11, {"prior": 0.6, "cls": 0.75, "id": 0.2}),
        (12, {"prior": 0.9, "cls": 0.5, "id": 0.4}),
        (14, {"prior": 1.5, "cls": 0.0, "id": 0.8}),
        (19, {"prior": 1.5, "cls": 0.0, "id": 0.8}),
        (22, {"prior": 1.5, "cls": 1.0, "id": 0.8}),
        (1000, {"prior": 1.5, "cls": 2.0, "id": 0.8}),
    ],
)
def test_linear_by_hand(step: int, expected: dict[str, float]) -> None:
    assert Staged(STAGES, handover=4).weights(step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("step", "fraction"),
    [(10, 0.0), (11, (1 - math.sqrt(0.5)) / 2), (12, 0.5), (13, (1 + math.sqrt(0.5)) / 2), (14, 1.0)],
)
def test_cosine_by_hand(step: int, fraction: float) -> None:
    assert Staged(STAGES, handover=4, shape="cosine").weights(step)["id"] == pytest.approx(0.8 * fraction)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_handover_runs_from_nothing_to_all(shape: Any) -> None:
    fractions = [handover_fraction(elapsed, 50, shape) for elapsed in range(60)]
    assert fractions[0] == 0.0
    assert fractions[50:] == [1.0] * 10
    assert fractions == sorted(fractions)


def test_ends_are_exact_so_that_zero_is_zero() -> None:
    weighting = Staged(STAGES, handover=4)
    assert weighting.weights(10)["id"] == 0.0
    assert weighting.weights(14) == {"prior": 1.5, "cls": 0.0, "id": 0.8}


def test_without_handover_the_stage_counts_from_its_start() -> None:
    weighting = Staged(STAGES)
    assert weighting.weights(9)["prior"] == 0.3
    assert weighting.weights(10)["prior"] == 1.5


def test_first_stage_counts_at_once() -> None:
    assert Staged(STAGES, handover=8).weights(0)["prior"] == 0.3


def test_sum_is_by_name() -> None:
    losses = {"id": torch.tensor([1.0, 0.0]), "cls": torch.tensor([2.0, 4.0]), "prior": torch.tensor([10.0, 0.0])}
    expected = torch.tensor([0.4 + 1.0 + 9.0, 2.0])
    torch.testing.assert_close(Staged(STAGES, handover=4)(losses, 12), expected)


def test_names_are_those_of_all_stages() -> None:
    with pytest.raises(InvalidSetting, match=r"Missing: none; unknown: id."):
        Staged(STAGES)({"prior": torch.zeros(1), "cls": torch.zeros(1)}, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"stages": []}, r"`stages` should begin with one that starts at 0. Found \[\]."),
        ({"stages": STAGES[1:]}, r"`stages` should begin with one that starts at 0. Found \[10, 20\]."),
        ({"stages": [*STAGES, STAGES[1]]}, r"`stages` should start at least 1 steps apart.* Found \[0, 10, 20, 10\]."),
        ({"stages": [STAGES[0], STAGES[0]]}, r"Found \[0, 0\]."),
        ({"stages": STAGES, "handover": 11}, "`stages` should start at least 11 steps apart"),
        ({"stages": STAGES, "handover": -1}, "`handover` should be a number of steps of at least 0. Found -1."),
        ({"stages": STAGES, "shape": "step"}, "`shape` should be one of linear, cosine. Found 'step'."),
        ({"stages": [StageWeights(0, {"cls": -1.0})]}, r"`stages\[0\].weights.cls` should be a finite number of at"),
        ({"stages": [StageWeights(0, {})]}, r"`stages\[0\].weights` should name at least one group."),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Staged(**arguments)
