"""Ensemble weights from how much each model's margin has improved of late."""

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation.ensemble import Combined, EnsembleRule, unit_gradients, weighted_gradient


def smoothed(before: Tensor, value: Tensor, decay: float) -> Tensor:
    r"""Return :math:`\beta a + (1 - \beta) x`, an exponential moving average after one more value, of any shape.

    >>> smoothed(torch.tensor([1.0]), torch.tensor([3.0]), 0.9)
    tensor([1.2000])
    """
    return decay * before + (1 - decay) * value


class Improvement(EnsembleRule):
    r"""Softmax over the models of the smoothed fall of their losses, per image, on :func:`.unit_gradients`.

    .. math:: a_{m,b} \leftarrow \beta a_{m,b} + (1 - \beta)(L^{\mathrm{before}}_{m,b} - L_{m,b}), \qquad
        w_{\cdot,b} = \mathrm{softmax}_m(\tau a_{m,b})

    The models on which the attack gains weigh more. It remembers one batch of images, row by row: make a new one for
    every attack. The first call has nothing to compare with and weighs all alike.

    Args:
        tau: how strongly a gain, in the units of the losses (logits, for a margin), counts.
        decay: :math:`\beta` of the moving average.

    Raises:
        InvalidSetting: for a ``tau`` that is negative, for a decay outside [0, 1); in ``forward``, for losses of
            another shape than before.
    """

    last: Tensor
    gain: Tensor

    def __init__(self, *, tau: float = 7.0, decay: float = 0.9) -> None:
        super().__init__()
        if not 0 <= tau < float("inf"):
            raise InvalidSetting("tau", "be a finite number of at least 0", tau)
        if not 0 <= decay < 1:
            raise InvalidSetting("decay", "be in [0, 1)", decay)
        self.tau = tau
        self.decay = decay
        self.register_buffer("last", torch.zeros(0))
        self.register_buffer("gain", torch.zeros(0))

    def forward(self, gradients: Tensor, losses: Tensor) -> Combined:
        losses = losses.detach()
        if self.last.numel() == 0:
            self.last, self.gain = losses, torch.zeros_like(losses)
        if losses.shape != self.last.shape:
            rule = f"have the shape of the call before, {tuple(self.last.shape)}"
            raise InvalidSetting("losses", rule, tuple(losses.shape), "Make a new rule for every batch of images.")
        self.gain = smoothed(self.gain, self.last - losses, self.decay)
        self.last = losses
        weights = (self.tau * self.gain).softmax(0)
        return Combined(weights, weighted_gradient(unit_gradients(gradients), weights))
