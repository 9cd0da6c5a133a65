from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio

from diffaudit.errors import InvalidSetting
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.latents import inverted, reconstruction_psnr, way_back
from diffaudit.perturbation.plans import PathPlan
from diffaudit.perturbation.rendering import render

MakePrior = Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]


def wave(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
    """Noise of the time step, the place and the token, whatever the latent."""
    places = torch.arange(latents[0].numel(), dtype=latents.dtype).view(latents[0].shape)
    return (places + timesteps[:, None, None, None] / 50).sin() + tokens[:, :, :, None]


def pictures_of(side: int) -> Tensor:
    return torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_way_back_ends_at_the_clean_latent(prior: DiffusionPrior) -> None:
    assert way_back(prior, 4, 0) == [999, 749, 499, 249, -1]
    assert way_back(prior, 4, 3) == [249, -1]
    assert way_back(prior, 20, 15) == [249, 199, 149, 99, 49, -1]


@pytest.mark.parametrize("start", [-1, 4])
def test_a_start_outside_the_steps_is_refused(prior: DiffusionPrior, start: int) -> None:
    with pytest.raises(InvalidSetting, match=rf"`start` should be in \[0, 3\]\. Found {start}"):
        way_back(prior, 4, start)
    with pytest.raises(InvalidSetting, match="`start`"):
        inverted(prior, torch.zeros(1, 4, 2, 2), prior.condition(None, 1), steps=4, start=start)


def test_inversion_in_closed_form(toy_prior: MakePrior) -> None:
    r"""With :math:`r = \sigma/s`, each step adds :math:`\epsilon(t') (r_{t'} - r_t)` to :math:`z_t/s_t`."""
    prior, latents = toy_prior(wave).double(), pictures_of(8)
    tokens = torch.tensor([[0.5], [-0.2], [1.0]], dtype=torch.float64)
    found = inverted(prior, latents, prior.condition(tokens, 3), steps=5, start=2)
    signal, spread, expected = 1.0, 0.0, latents
    assert len(found) == 4
    assert torch.equal(found[0], latents)
    for timestep, step in zip((199, 399, 599), found[1:], strict=True):
        kept = float(prior.alphas_cumprod[timestep])
        after = (kept**0.5, (1 - kept) ** 0.5)
        noise = wave(latents, torch.full((3,), timestep), tokens[:, None])
        expected = expected + noise * (after[1] / after[0] - spread / signal)
        signal, spread = after
        torch.testing.assert_close(step, signal * expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("steps", "start"), [(1, 0), (5, 3), (8, 1)])
def test_noise_that_does_not_know_the_latent_leads_back_exactly(toy_prior: MakePrior, steps: int, start: int) -> None:
    prior, images = toy_prior(wave).double(), pictures_of(8)
    condition = prior.condition(torch.full((3, 1), 0.3, dtype=torch.float64), 3)
    trajectory = inverted(prior, prior.encode(images), condition, steps=steps, start=start)
    back = render(prior, trajectory[-1], condition, (None,) * (steps - start), PathPlan(steps, start, 1.0))
    torch.testing.assert_close(back.image, images, rtol=0, atol=1e-9)


def test_the_way_back_is_the_better_the_more_steps_there_are(prior: DiffusionPrior) -> None:
    """A UNet's noise depends on the latent: the error is that of Euler's method, of the step's order."""
    latents = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    embeddings = torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    condition = prior.condition(embeddings, 2)
    clean, errors = prior.decode(latents), []
    for steps in (2, 8, 32):
        start = steps // 2
        trajectory = inverted(prior, latents, condition, steps=steps, start=start)
        back = render(prior, trajectory[-1], condition, (None,) * start, PathPlan(steps, start, 1.0))
        errors.append(float((back.image - clean).abs().mean()))
    assert errors[1] < errors[0] / 2
    assert errors[2] < errors[1] / 2


def test_inversion_of_a_picture_does_not_depend_on_its_batch_mates(prior: DiffusionPrior) -> None:
    latents = torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    condition = prior.condition(torch.randn(3, 6, generator=torch.Generator().manual_seed(2)).double(), 3)
    together = inverted(prior, latents, condition, steps=4, start=2)
    alone = inverted(prior, latents[1:2], condition[slice(1, 2)], steps=4, start=2)
    for all_of_them, one in zip(together, alone, strict=True):
        torch.testing.assert_close(all_of_them[1:2], one)
        assert not all_of_them.requires_grad


def test_psnr_by_hand_and_by_torchmetrics() -> None:
    images, rebuilt = pictures_of(8).float(), pictures_of(8).float().flip(0) * 0.9
    halved = reconstruction_psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    assert halved.item() == pytest.approx(6.0206, abs=1e-4)  # 20 log10 2
    assert reconstruction_psnr(images, images).tolist() == [torch.inf] * 3
    for one, other, found in zip(images, rebuilt, reconstruction_psnr(images, rebuilt), strict=True):
        torch.testing.assert_close(found, peak_signal_noise_ratio(other, one, data_range=1.0))
