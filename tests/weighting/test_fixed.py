import math

import pytest
import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.weighting import Fixed, weighted_sum

WEIGHTS = {"prior": 1.2, "cls": 1.0, "id": 0.8}


def losses() -> dict[str, Tensor]:
    return {
        "prior": torch.tensor([1.0, 2.0]),
        "cls": torch.tensor([-3.0, 0.0]),
        "id": torch.tensor([0.5, 1.0]),
    }


def test_by_hand() -> None:
    expected = torch.tensor([1.2 - 3.0 + 0.4, 2.4 + 0.0 + 0.8])
    torch.testing.assert_close(Fixed(WEIGHTS)(losses(), 0), expected)
    torch.testing.assert_close(weighted_sum(losses(), WEIGHTS), expected)


def test_names_count_and_order_does_not() -> None:
    turned = dict(reversed(losses().items()))
    torch.testing.assert_close(Fixed(WEIGHTS)(turned, 0), Fixed(WEIGHTS)(losses(), 0))
    torch.testing.assert_close(Fixed(dict(reversed(WEIGHTS.items())))(losses(), 0), Fixed(WEIGHTS)(losses(), 0))


def test_same_at_every_step() -> None:
    weighting = Fixed(WEIGHTS)
    assert weighting.weights(0) == weighting.weights(10_000) == WEIGHTS


def test_logged_weights_are_a_copy() -> None:
    given = dict(WEIGHTS)
    weighting = Fixed(given)
    weighting.weights(0)["id"] = 9.0
    given["id"] = 9.0
    assert weighting.weights(0) == WEIGHTS


def test_gradient_is_the_weight() -> None:
    leaves = {name: loss.requires_grad_() for name, loss in losses().items()}
    Fixed(WEIGHTS)(leaves, 0).sum().backward()
    for name, loss in leaves.items():
        assert loss.grad is not None
        torch.testing.assert_close(loss.grad, torch.full((2,), WEIGHTS[name]))


def test_watched_group_cannot_poison_the_sum() -> None:
    value = Fixed({"cls": 1.0, "id": 0.0})({"cls": torch.tensor([2.0]), "id": torch.tensor([math.nan])}, 0)
    assert value.tolist() == [2.0]


def test_all_weights_zero() -> None:
    assert Fixed({"cls": 0.0})({"cls": torch.tensor([2.0, 3.0])}, 0).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["prior", "cls"], "`weights` should name exactly the groups .*: cls, prior. .* Missing: none; unknown: id."),
        (["prior", "cls", "id", "perc"], "Missing: perc; unknown: none."),
        (["prior", "cls", "idd"], "Missing: idd; unknown: id."),
    ],
)
def test_other_names_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Fixed(WEIGHTS)({name: torch.zeros(2) for name in names}, 0)


@pytest.mark.parametrize("weight", [-1.0, math.nan, math.inf])
def test_weights_that_turn_a_term_round_are_refused(weight: float) -> None:
    with pytest.raises(InvalidSetting, match=r"`weights.cls` should be a finite number of at least 0. Found"):
        Fixed({"cls": weight})


def test_no_weights_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`weights` should name at least one group."):
        Fixed({})
