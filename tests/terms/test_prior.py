from dataclasses import replace
from typing import Any

import pytest
import torch

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import PriorNoise, noise_mse


def candidate_with(noise: torch.Tensor, prediction: torch.Tensor) -> Candidate:
    image = torch.zeros(len(noise), 3, 4, 4)
    target = torch.zeros(len(noise), dtype=torch.long)
    return Candidate(
        image=image, source=image, target=target, logits=torch.zeros(len(noise), 2), noise=noise, prediction=prediction
    )


def test_by_hand() -> None:
    noise = torch.tensor([[[[1.0, -1.0], [0.0, 2.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    prediction = torch.tensor([[[[0.0, 1.0], [0.0, 2.0]]], [[[2.0, 2.0], [2.0, 2.0]]]])
    assert noise_mse(noise, prediction).tolist() == [1.25, 4.0]


def test_right_prediction_costs_nothing() -> None:
    noise = torch.randn(3, 4, 8, 8)
    assert noise_mse(noise, noise.clone()).tolist() == [0.0, 0.0, 0.0]


def test_mean_over_images_is_the_usual_loss() -> None:
    noise, prediction = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    torch.testing.assert_close(noise_mse(noise, prediction).mean(), torch.nn.functional.mse_loss(prediction, noise))


def test_gradient_is_twice_the_error_over_the_size() -> None:
    noise, prediction = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3, requires_grad=True)
    noise_mse(noise, prediction).sum().backward()
    torch.testing.assert_close(prediction.grad, 2 * (prediction.detach() - noise) / 9)


def test_term_is_the_formula() -> None:
    noise, prediction = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    assert torch.equal(PriorNoise()(candidate_with(noise, prediction)), noise_mse(noise, prediction))


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`prediction` should have .* `noise`, \(2, 1, 4, 4\).* Found \(1, 1, 4"):
        noise_mse(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("name", ["noise", "prediction"])
def test_needs_the_draw(name: str) -> None:
    missing: dict[str, Any] = {name: None}
    candidate = replace(candidate_with(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)), **missing)
    with pytest.raises(InvalidSetting, match=f"`{name}` should be filled in the candidate .* Found None. The loop"):
        PriorNoise()(candidate)
