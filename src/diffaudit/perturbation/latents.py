"""DDIM inversion: the latent in the middle of the way from which the prior returns to a picture."""

from itertools import pairwise

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior


def way_back(prior: DiffusionPrior, steps: int, start: int) -> list[int]:
    """The falling time steps from step ``start`` of ``steps`` on, and -1, which stands for the clean latent.

    Raises:
        InvalidSetting: a ``start`` outside ``[0, steps)``.
    """
    if not 0 <= start < steps:
        raise InvalidSetting("start", f"be in [0, {steps - 1}]", start)
    return [*prior.timesteps(steps, 1.0)[start:], -1]


@torch.no_grad()
def inverted(
    prior: DiffusionPrior, latents: Tensor, condition: Condition, *, steps: int, start: int
) -> tuple[Tensor, ...]:
    r"""Return the latents on the way from the clean ones up to step ``start``, that one last, at guidance 1.

    Shapes ``(B, c, h, w) -> steps - start + 1`` times the same. DDIM backwards: the noise at the next time step is
    taken for that of the present one,

    .. math:: z_{t'} = \sqrt{\bar\alpha_{t'}} \hat z_0 + \sqrt{1 - \bar\alpha_{t'}}\, \epsilon(z_t, t'), \qquad t' > t

    so the way down returns exactly where the noise does not depend on the latent, and the better the more steps there
    are. Guidance would enlarge the error at every step.

    Papers: Song, Meng, Ermon, "Denoising Diffusion Implicit Models" (2020, arXiv:2010.02502), section 4.3; Mokady et
    al., "Null-text Inversion for Editing Real Images using Guided Diffusion Models" (2022, arXiv:2211.09794), section
    3.1, for the guidance of 1.

    Raises:
        InvalidSetting: a ``start`` outside ``[0, steps)``.
    """
    found = [latents]
    for before, after in pairwise(reversed(way_back(prior, steps, start))):
        now, onward = (torch.full((len(latents),), value, device=latents.device) for value in (before, after))
        epsilon = prior.epsilon(found[-1], onward, condition)
        found.append(prior.ddim_step(found[-1], epsilon, now, onward))
    return tuple(found)


def reconstruction_psnr(images: Tensor, rebuilt: Tensor) -> Tensor:
    r"""Return the peak signal-to-noise ratio :math:`-10 \log_{10} \mathrm{mean}\,(x_b - x'_b)^2` in dB.

    Shapes ``(B, 3, H, W), (B, 3, H, W) -> (B,)``, both in [0, 1]; infinite for equal images. Of pictures and what the
    inversion alone returns to, it is the damage that no attack has done.

    >>> reconstruction_psnr(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1))
    tensor([20.])
    """
    return -10 * (images - rebuilt).square().flatten(1).mean(1).log10()
