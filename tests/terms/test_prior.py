import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import PriorNoise, constant_weight, linear_weight, noise_cosine, noise_hybrid, noise_mse

Distance = Callable[[Tensor, Tensor], Tensor]
every_distance = pytest.mark.parametrize("distance", [noise_mse, noise_cosine, noise_hybrid])


def candidate_with(noise: Tensor, prediction: Tensor, progress: Tensor | None = None) -> Candidate:
    image = torch.zeros(len(noise), 3, 4, 4)
    return Candidate(
        image=image,
        source=image,
        target=torch.zeros(len(noise), dtype=torch.long),
        logits=torch.zeros(len(noise), 2),
        noise=noise,
        prediction=prediction,
        progress=torch.rand(len(noise)) if progress is None else progress,
    )


def test_by_hand() -> None:
    noise = torch.tensor([[[[1.0, -1.0], [0.0, 2.0]]], [[[0.0, 0.0], [0.0, 0.0]]]])
    prediction = torch.tensor([[[[0.0, 1.0], [0.0, 2.0]]], [[[2.0, 2.0], [2.0, 2.0]]]])
    assert noise_mse(noise, prediction).tolist() == [1.25, 4.0]


@every_distance
def test_right_prediction_costs_nothing(distance: Distance) -> None:
    noise = torch.randn(3, 4, 8, 8)
    assert distance(noise, noise.clone()).tolist() == [0.0, 0.0, 0.0]


def test_mean_over_images_is_the_usual_loss() -> None:
    noise, prediction = torch.randn(5, 4, 8, 8), torch.randn(5, 4, 8, 8)
    torch.testing.assert_close(noise_mse(noise, prediction).mean(), F.mse_loss(prediction, noise))


def test_gradient_is_twice_the_error_over_the_size() -> None:
    noise, prediction = torch.randn(2, 1, 3, 3), torch.randn(2, 1, 3, 3, requires_grad=True)
    noise_mse(noise, prediction).sum().backward()
    torch.testing.assert_close(prediction.grad, 2 * (prediction.detach() - noise) / 9)


def test_cosine_by_hand() -> None:
    noise = torch.tensor([1.0, 0.0, 0.0, 0.0]).view(1, 2, 1, 2).expand(4, 2, 1, 2)
    rows = [[5.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], [-0.1, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    found = noise_cosine(noise, torch.tensor(rows).view(4, 2, 1, 2))
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0, 2.0, 0.5]))


def test_cosine_is_one_minus_the_reference_over_all_channels_and_places() -> None:
    noise, prediction = torch.randn(2, 9, 4, 5, 5, dtype=torch.float64)
    expected = 1 - F.cosine_similarity(noise.flatten(1), prediction.flatten(1))
    torch.testing.assert_close(noise_cosine(noise, prediction), expected)


def test_cosine_along_the_last_axis_compares_rows_of_pixels() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = noise * torch.linspace(0.01, 10, 8)[:, None]  # each row of pixels rescaled: another noise
    fault = 1 - (F.normalize(noise, dim=-1) * F.normalize(prediction, dim=-1)).sum(-1).mean((1, 2))
    assert fault.abs().max() < 1e-6
    assert noise_cosine(noise, prediction).min() > 0.1


def test_cosine_along_the_channels_compares_single_places() -> None:
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    prediction = noise * torch.linspace(0.01, 10, 64).view(8, 8)  # each place rescaled
    fault = 1 - F.cosine_similarity(noise, prediction, dim=1).mean((1, 2))
    assert fault.abs().max() < 1e-6
    assert noise_cosine(noise, prediction).min() > 0.1


def test_cosine_leaves_the_norm_free_and_hybrid_holds_it() -> None:
    noise = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    scale = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
    (drift,) = torch.autograd.grad(noise_cosine(noise, scale * noise).sum(), scale)
    assert drift.item() == pytest.approx(0, abs=1e-12)
    (pull,) = torch.autograd.grad(noise_hybrid(noise, scale * noise).sum(), scale)
    assert pull.item() == pytest.approx(0.1 * 2 * math.log(1.5) / 1.5)


def test_gradient_of_the_cosine_vanishes_like_the_sine_of_the_angle() -> None:
    angle = torch.tensor([0.001, 0.1, 1.0, 3.0], dtype=torch.float64)
    prediction = torch.stack((angle.cos(), angle.sin()), dim=1).view(4, 2, 1, 1).requires_grad_()
    noise = torch.tensor([1.0, 0.0], dtype=torch.float64).view(1, 2, 1, 1).expand(4, 2, 1, 1)
    (gradient,) = torch.autograd.grad(noise_cosine(noise, prediction).sum(), prediction)
    torch.testing.assert_close(gradient.flatten(1).norm(dim=1), angle.sin())


@pytest.mark.parametrize("weight", [0.0, 0.1, 2.0])
def test_hybrid_by_hand(weight: float) -> None:
    noise = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1).expand(2, 2, 1, 1)
    prediction = torch.tensor([[6.0, 8.0], [-2.0, 1.5]]).view(2, 2, 1, 1)
    found = noise_hybrid(noise, prediction, norm_weight=weight)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0]) + weight * math.log(2) ** 2)


def test_hybrid_of_a_prediction_of_zeros_is_finite_with_its_gradient() -> None:
    prediction = torch.zeros(1, 2, 2, 2, requires_grad=True)
    value = noise_hybrid(torch.ones(1, 2, 2, 2), prediction)
    value.sum().backward()
    assert value.isfinite().all()
    assert prediction.grad is not None
    assert prediction.grad.isfinite().all()


@every_distance
def test_term_is_the_formula(distance: Distance) -> None:
    noise, prediction = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    expected = distance(noise, prediction)
    assert torch.equal(PriorNoise(distance)(candidate_with(noise, prediction)), expected)


def test_the_baseline_is_the_unweighted_squared_error() -> None:
    candidate = candidate_with(torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8))
    assert torch.equal(PriorNoise()(candidate), PriorNoise(noise_mse, schedule=constant_weight)(candidate))


def test_each_image_is_weighted_by_its_own_progress() -> None:
    noise, prediction = torch.zeros(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    candidate = candidate_with(noise, prediction, torch.tensor([0.0, 0.25, 1.0]))
    assert PriorNoise(schedule=linear_weight)(candidate).tolist() == [0.5, 0.75, 1.5]


@every_distance
def test_shapes_that_would_broadcast_are_refused(distance: Distance) -> None:
    with pytest.raises(InvalidSetting, match=r"`prediction` should have .* `noise`, \(2, 1, 4, 4\).* Found \(1, 1, 4"):
        distance(torch.zeros(2, 1, 4, 4), torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_norm_weight_is_refused(weight: float) -> None:
    with pytest.raises(InvalidSetting, match=r"`norm_weight` should be a finite number of at least 0. Found"):
        partial(noise_hybrid, norm_weight=weight)(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2))


@pytest.mark.parametrize("name", ["noise", "prediction", "progress"])
def test_needs_the_draw(name: str) -> None:
    missing: dict[str, Any] = {name: None}
    candidate = replace(candidate_with(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)), **missing)
    with pytest.raises(InvalidSetting, match=f"`{name}` should be filled in the candidate .* Found None. The loop"):
        PriorNoise()(candidate)
