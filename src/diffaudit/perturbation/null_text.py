"""Null-text optimisation: null conditions under which guidance returns to the picture too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.latents import way_back

GOOD_ENOUGH = 1e-5
"""Mean squared error of a latent below which its null condition is left as it is."""


def null_conditions(
    prior: DiffusionPrior,
    trajectory: Sequence[Tensor],
    condition: Condition,
    null: Condition,
    *,
    steps: int,
    start: int,
    guidance_scale: float,
    inner_steps: int = 10,
    rate: float = 0.1,
) -> tuple[Condition, ...]:
    r"""Return the null condition of every step on the way back, each image's own.

    At step ``i`` of the way its tokens are moved by ``inner_steps + 2 i`` steps of Adam to lower
    :math:`\|z^*_{t-1} - z_{t-1}(\varnothing_t)\|^2`, where :math:`z^*` is the ``trajectory`` of
    :func:`~diffaudit.perturbation.latents.inverted` and :math:`z(\varnothing_t)` one guided DDIM step; each step begins
    with the tokens, and the latent, that the one before has ended with. An image that is near enough moves no more.

    Paper: Mokady, Hertz, Aberman, Pritch, Cohen-Or, "Null-text Inversion for Editing Real Images using Guided Diffusion
    Models" (2022, arXiv:2211.09794), equation 3.

    Raises:
        InvalidSetting: a trajectory of another length than the way's.
    """
    schedule = way_back(prior, steps, start)
    if len(trajectory) != len(schedule):
        raise InvalidSetting("trajectory", f"hold {len(schedule)} latents, clean to step {start}", len(trajectory))
    current = trajectory[-1]
    tokens = null.tokens.expand(len(current), -1, -1).clone()
    found = []
    wanted = reversed(trajectory[:-1])
    for index, ((timestep, following), goal) in enumerate(zip(pairwise(schedule), wanted, strict=True)):
        now, onward = (torch.full((len(current),), value, device=current.device) for value in (timestep, following))
        with torch.no_grad():
            conditional = prior.epsilon(current, now, condition)
        guided = _GuidedStep(prior, current, conditional, null, now, onward, guidance_scale)
        tokens = _fitted(tokens, guided, goal, inner_steps + 2 * index, rate)
        found.append(replace(null, tokens=tokens))
        with torch.no_grad():
            current = guided(tokens)
    return tuple(found)


@dataclass(frozen=True, eq=False)
class _GuidedStep:
    """One guided DDIM step as a function of the null condition's tokens; the conditional noise is computed once."""

    prior: DiffusionPrior
    latents: Tensor
    conditional: Tensor
    null: Condition
    now: Tensor
    onward: Tensor
    scale: float

    def __call__(self, tokens: Tensor) -> Tensor:
        without = self.prior.epsilon(self.latents, self.now, replace(self.null, tokens=tokens))
        guided = without + self.scale * (self.conditional - without)
        return self.prior.ddim_step(self.latents, guided, self.now, self.onward)


def _fitted(tokens: Tensor, stepped: Callable[[Tensor], Tensor], goal: Tensor, count: int, rate: float) -> Tensor:
    """The tokens after at most ``count`` steps of Adam; rows that are near enough stay where they are."""
    moving = tokens.detach().clone().requires_grad_()
    optimiser = torch.optim.Adam([moving], lr=rate)
    for _ in range(count):
        errors = (stepped(moving) - goal).square().flatten(1).mean(1)
        near = errors.detach() < GOOD_ENOUGH
        if bool(near.all()):
            break
        before = moving.detach().clone()
        (moving.grad,) = torch.autograd.grad(errors.sum(), moving)
        optimiser.step()
        # Adam would move a row on by its momentum, gradient or not.
        with torch.no_grad():
            moving[near] = before[near]
    return moving.detach()
