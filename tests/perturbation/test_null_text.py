from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.latents import inverted
from diffaudit.perturbation.null_text import null_conditions
from diffaudit.perturbation.plans import PathPlan
from diffaudit.perturbation.rendering import render

MakePrior = Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]

PATH = PathPlan(steps=6, start=3, guidance_scale=2.5)
WANTED = torch.tensor([[0.7], [-0.4], [0.0]])
"""What each picture is told; 0 is what the null condition tells."""


def striped(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
    """Noise that is linear in the token: the null token that returns to the picture is the condition's own."""
    places = torch.arange(latents[0].numel(), dtype=latents.dtype).view(latents[0].shape)
    return places.sin() * tokens[:, :, :, None] + (timesteps[:, None, None, None] / 100).cos()


def pictures_of(count: int = 3) -> Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def optimised(
    prior: DiffusionPrior, rows: Sequence[int] = (0, 1, 2), *, inner_steps: int = 10, rate: float = 0.1
) -> tuple[Condition, ...]:
    condition = prior.condition(WANTED[list(rows)], len(rows))
    trajectory = inverted(prior, prior.encode(pictures_of()[list(rows)]), condition, steps=6, start=3)
    null = prior.condition(None, len(rows))
    return null_conditions(
        prior, trajectory, condition, null, steps=6, start=3, guidance_scale=2.5, inner_steps=inner_steps, rate=rate
    )


def test_the_null_condition_in_closed_form(toy_prior: MakePrior) -> None:
    r""":math:`(1 - w) n + w c = c` for every guidance: where noise is linear in the token, ``n`` comes to ``c``."""
    found = optimised(toy_prior(striped), inner_steps=150, rate=0.02)
    assert len(found) == 3
    for condition in found:
        torch.testing.assert_close(condition.tokens[:, 0], WANTED, rtol=0, atol=0.02)


def test_a_guided_way_back_comes_nearer_to_the_picture(prior: DiffusionPrior) -> None:
    """On a real UNet, of which nothing is known but that gradients lower the error."""
    latents = torch.randn(2, 4, 2, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    embeddings = 3 * torch.randn(2, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    condition, null = prior.condition(embeddings, 2), prior.condition(None, 2)
    path = PathPlan(steps=4, start=2, guidance_scale=7.5)
    trajectory = inverted(prior, latents, condition, steps=4, start=2)
    found = null_conditions(prior, trajectory, condition, null, steps=4, start=2, guidance_scale=7.5)
    errors = []
    for nulls in ((null, null), found):
        image = render(prior, trajectory[-1], condition, nulls, path).image
        errors.append((image - prior.decode(latents)).square().flatten(1).mean(1))
    assert (errors[1] < errors[0] / 2).all()


def test_a_picture_does_not_depend_on_its_batch_mates(toy_prior: MakePrior) -> None:
    prior = toy_prior(striped)
    together = optimised(prior)
    for row in range(3):
        for one, all_of_them in zip(optimised(prior, [row]), together, strict=True):
            torch.testing.assert_close(one.tokens, all_of_them.tokens[row : row + 1], rtol=0, atol=1e-6)


def test_a_picture_that_is_near_enough_keeps_its_tokens(toy_prior: MakePrior) -> None:
    """The last one is told what the null condition tells: guidance changes nothing."""
    for condition in optimised(toy_prior(striped)):
        assert condition.tokens[2].item() == 0
        assert (condition.tokens[:2] != 0).all()


def test_every_later_step_has_two_more(toy_prior: MakePrior) -> None:
    counts: list[int] = []

    def counted(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        if tokens.requires_grad:
            counts.append(int(timesteps[0]))
        return striped(latents, timesteps, tokens)

    optimised(toy_prior(counted), inner_steps=4, rate=1e-4)
    assert [counts.count(timestep) for timestep in (499, 332, 166)] == [4, 6, 8]


def test_a_trajectory_of_another_way_is_refused(toy_prior: MakePrior) -> None:
    prior = toy_prior(striped)
    condition = prior.condition(WANTED, 3)
    trajectory = inverted(prior, prior.encode(pictures_of()), condition, steps=6, start=2)
    with pytest.raises(InvalidSetting, match=r"`trajectory` should hold 4 latents, clean to step 3\. Found 5"):
        null_conditions(prior, trajectory, condition, condition, steps=6, start=3, guidance_scale=2.5)
