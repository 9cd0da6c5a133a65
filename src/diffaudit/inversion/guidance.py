"""Sparse classifier guidance: now and then the sampler is turned toward the class sought."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffaudit.models.classifier import Classifier
from diffaudit.models.prior import DiffusionPrior


def turned_noise(epsilon: Tensor, gradient: Tensor, spread: Tensor, strength: Tensor) -> Tensor:
    r"""Return the noise turned along a gradient of the log-probability, by a step as long as a share of the noise.

    .. math:: \epsilon - \gamma \sqrt{1 - \bar\alpha_t}\, \|\epsilon\| \, \frac{g}{\|g\|}

    Shapes ``(B, c, h, w), (B, c, h, w), (B,), (B,) -> (B, c, h, w)``; ``spread`` is :math:`\sqrt{1 - \bar\alpha_t}`.
    Norms are each image's own. An image whose gradient is 0 keeps its noise.

    Paper: Dhariwal, Nichol, "Diffusion Models Beat GANs on Image Synthesis" (2021, arXiv:2105.05233), algorithm 2, here
    with the gradient's length taken out.

    >>> one = torch.ones(1, 1, 1, 1)
    >>> turned_noise(2 * one, 5 * one, torch.tensor([0.5]), torch.tensor([0.25])).item()
    1.75
    """
    length = gradient.flatten(1).norm(dim=1)
    direction = gradient / length.clamp(min=torch.finfo(gradient.dtype).tiny)[:, None, None, None]
    step = strength * spread * epsilon.flatten(1).norm(dim=1)
    turned: Tensor = epsilon - step[:, None, None, None] * direction
    return turned


def guidance_strength(progress: Tensor, scale: float) -> Tensor:
    r""":math:`\gamma(s) = \gamma_0 e^{-5 (1 - s)}`: grows as noise falls, ``(B,) -> (B,)``.

    >>> guidance_strength(torch.tensor([1.0, 0.0]), 2.0)
    tensor([2.0000, 0.0135])
    """
    strength: Tensor = scale * (-5 * (1 - progress)).exp()
    return strength


@dataclass(frozen=True, eq=False)
class ClassifierGuidance:
    r"""Turns the noise at every ``every``-th step of the sampler toward ``target (B,)``.

    ``scale`` is :math:`\gamma_0`, the largest share of the noise by which it is turned.
    """

    prior: DiffusionPrior
    classifier: Classifier
    target: Tensor
    scale: float
    every: int

    def __call__(
        self, latents: Tensor, timesteps: Tensor, epsilon_of: Callable[[Tensor], Tensor], index: int
    ) -> Tensor:
        """The noise in ``latents (B, c, h, w)`` at ``timesteps (B,)``, turned if step ``index`` is one of those."""
        if index % self.every:
            return epsilon_of(latents)
        with torch.enable_grad():
            start = latents.detach().requires_grad_()
            epsilon = epsilon_of(start)
            picture = self.prior.decode(self.prior.clean(start, epsilon, timesteps))
            chances = self.classifier.logits(picture).log_softmax(1).gather(1, self.target[:, None])
            (gradient,) = torch.autograd.grad(chances.sum(), start)
        progress = 1 - timesteps / (self.prior.num_train_timesteps - 1)
        spread = (1 - self.prior.alphas_cumprod[timesteps]).sqrt()
        return turned_noise(epsilon.detach(), gradient, spread, guidance_strength(progress, self.scale))
