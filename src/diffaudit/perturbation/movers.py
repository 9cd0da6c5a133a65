"""How a latent moves along its gradient: AdamW, or the sign of a momentum."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from diffaudit.perturbation.plans import StepPlan
from diffaudit.perturbation.steps import momentum_step, sign_step


class Mover(ABC):
    """``latents (B, c, h, w)`` and their gradient to the latents one step down; it remembers one batch of pictures."""

    @abstractmethod
    def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
        """The latents after the step."""


class AdamWMover(Mover):
    """AdamW without weight decay, which would pull latents to 0; its moments are per entry, so pictures do not meet.

    Paper: Loshchilov, Hutter, "Decoupled Weight Decay Regularization" (2017, arXiv:1711.05101).
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._latents: torch.nn.Parameter | None = None
        self._optimiser: torch.optim.AdamW | None = None

    def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
        if self._latents is None or self._optimiser is None:
            self._latents = torch.nn.Parameter(latents.clone())
            self._optimiser = torch.optim.AdamW([self._latents], lr=self._rate, weight_decay=0.0)
        # What lies between the steps, a radius or a picture left alone, may have moved them elsewhere.
        self._latents.data.copy_(latents)
        self._latents.grad = gradient
        self._optimiser.step()
        return self._latents.detach().clone()


class MomentumMover(Mover):
    """Steps along the sign of the momentum: :func:`.momentum_step`, then :func:`.sign_step`."""

    def __init__(self, rate: float, *, decay: float, clip: float) -> None:
        self._rate, self._decay, self._clip = rate, decay, clip
        self._momentum: Tensor | None = None

    def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
        before = torch.zeros_like(latents) if self._momentum is None else self._momentum
        self._momentum = momentum_step(before, gradient, decay=self._decay, clip=self._clip)
        return sign_step(latents, self._momentum, size=self._rate)


def mover_of(plan: StepPlan) -> Mover:
    """A fresh mover, for one batch of pictures."""
    if plan.kind == "adamw":
        return AdamWMover(plan.rate)
    return MomentumMover(plan.rate, decay=plan.decay, clip=plan.clip)
