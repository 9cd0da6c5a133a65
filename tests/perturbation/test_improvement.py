import math

import pytest
import torch

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation.improvement import Improvement, smoothed

GRADIENTS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])[:, None, :, None, None]


NOTHING = torch.zeros(2, 1)


def test_weights_by_hand() -> None:
    rule = Improvement(tau=2.0)
    first = rule(GRADIENTS, NOTHING, torch.tensor([[-5.0], [-5.0]]))
    assert first.weights.flatten().tolist() == [0.5, 0.5]
    assert first.gradient.flatten().tolist() == [0.5, 0.5, 0.0]
    second = rule(GRADIENTS, NOTHING, torch.tensor([[-3.0], [-6.0]]))  # gains 2 and -1, of which a tenth counts
    ratio = math.exp(2 * (0.2 + 0.1))
    assert second.weights.flatten().tolist() == pytest.approx([ratio / (ratio + 1), 1 / (ratio + 1)])
    third = rule(GRADIENTS, NOTHING, torch.tensor([[-3.0], [-2.0]]))  # gains 0 and 4
    ratio = math.exp(2 * (0.9 * 0.2 - (0.9 * -0.1 + 0.1 * 4)))
    assert third.weights.flatten().tolist() == pytest.approx([ratio / (ratio + 1), 1 / (ratio + 1)])


def test_losses_of_random_views_are_not_read() -> None:
    """Two models on which nothing is gained weigh alike, though views come and go and one finds them far harder."""
    rule = Improvement()
    for iteration in range(6):
        losses = torch.tensor([[5.0], [9.0]]) if iteration % 2 == 0 else torch.tensor([[4.0], [1.0]])
        assert rule(GRADIENTS, losses, torch.tensor([[-4.0], [-1.0]])).weights.flatten().tolist() == [0.5, 0.5]


def test_smoothing_settles_at_a_constant() -> None:
    value = torch.zeros(1, dtype=torch.float64)
    for _ in range(200):
        value = smoothed(value, torch.tensor([3.0], dtype=torch.float64), 0.9)
    assert value.item() == pytest.approx(3.0)


def test_another_batch_is_refused() -> None:
    rule = Improvement()
    rule(GRADIENTS, NOTHING, NOTHING)
    with pytest.raises(InvalidSetting, match=r"`margins` should have the shape of the call before, \(2, 1\)"):
        rule(GRADIENTS, NOTHING, torch.zeros(2, 3))


@pytest.mark.parametrize(("arguments", "name"), [({"tau": -1.0}, "tau"), ({"decay": 1.0}, "decay")])
def test_refusals(arguments: dict[str, float], name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"`{name}` should"):
        Improvement(**arguments)
