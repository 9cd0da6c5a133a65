"""The sampler: from a noised picture to a clean latent under a condition, by deterministic DDIM steps."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior

Guide = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor], int], Tensor]


def ddim(
    prior: DiffusionPrior,
    latents: Tensor,
    noise: Tensor,
    condition: Condition,
    null: Condition | None,
    *,
    steps: int,
    strength: float,
    guidance_scale: float,
    gradient_steps: int | None = None,
    guide: Guide | None = None,
) -> Tensor:
    """``(B, c, h, w)`` clean latents, from ``latents`` and ``noise (B, c, h, w)`` mixed at ``strength`` of the way.

    ``null`` is the condition that guidance leads away from; without guidance it may be None. ``gradient_steps``
    differentiates the last so many steps only; None: all. Truncation as in Clark et al., *DRaFT*, 2023,
    arXiv 2309.17400, and Prabhudesai et al., *AlignProp*, 2023, arXiv 2310.03739.

    ``guide`` may turn the noise of a step; it is given the latents, their time steps, the function that predicts their
    noise, and the number of the step.

    Song, Meng and Ermon, *Denoising Diffusion Implicit Models*, 2021, arXiv 2010.02502.

    Raises:
        InvalidSetting: ``steps`` below 1 or ``strength`` outside (0, 1].
    """
    schedule = [
        torch.full((len(latents),), timestep, device=latents.device)
        for timestep in [*prior.timesteps(steps, strength), -1]
    ]
    first_with_gradient = 0 if gradient_steps is None else steps - gradient_steps
    current = prior.add_noise(latents, noise, schedule[0])
    for index, (now, onward) in enumerate(pairwise(schedule)):
        with torch.set_grad_enabled(torch.is_grad_enabled() and index >= first_with_gradient):
            epsilon_of = partial(
                prior.guided_epsilon, timesteps=now, condition=condition, null=null, scale=guidance_scale
            )
            epsilon = epsilon_of(current) if guide is None else guide(current, now, epsilon_of, index)
            current = prior.ddim_step(current, epsilon, now, onward)
    return current
