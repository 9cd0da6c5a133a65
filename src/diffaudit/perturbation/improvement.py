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
    r"""Softmax over the models of the smoothed gain in their margins, per image, on :func:`.unit_gradients`.

    .. math:: a_{m,b} \leftarrow \beta a_{m,b} + (1 - \beta)(\mu_{m,b} - \mu^{\mathrm{before}}_{m,b}), \qquad
        w_{\cdot,b} = \mathrm{softmax}_m(\tau a_{m,b})

    :math:`\mu` is by how much a model is fooled. The models on which the attack gains weigh more. Losses would not do:
    where random views alternate with the picture as it is, their differences follow the views, whatever is gained. It
    remembers one batch of images, row by row: make a new one for every attack. The first call has nothing to compare
    with and weighs all alike.

    Args:
        tau: how strongly a gain, in logits, counts.
        decay: :math:`\beta` of the moving average.

    Raises:
        InvalidSetting: for a ``tau`` that is negative, for a decay outside [0, 1); in ``forward``, for margins of
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

    def forward(self, gradients: Tensor, losses: Tensor, margins: Tensor) -> Combined:
        margins = margins.detach()
        if self.last.numel() == 0:
            self.last, self.gain = margins, torch.zeros_like(margins)
        if margins.shape != self.last.shape:
            rule = f"have the shape of the call before, {tuple(self.last.shape)}"
            raise InvalidSetting("margins", rule, tuple(margins.shape), "Make a new rule for every batch of images.")
        self.gain = smoothed(self.gain, margins - self.last, self.decay)
        self.last = margins
        weights = (self.tau * self.gain).softmax(0)
        return Combined(weights, weighted_gradient(unit_gradients(gradients), weights))
