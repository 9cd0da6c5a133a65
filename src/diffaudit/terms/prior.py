"""Prior terms: do the trained weights still predict the noise of real images?"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.terms._checks import require_rows, require_weight, required
from diffaudit.terms.base import Term
from diffaudit.terms.schedules import Schedule, constant_weight

SMALLEST_NORM = 1e-12


def noise_mse(noise: Tensor, prediction: Tensor) -> Tensor:
    r"""Return the mean squared error of the predicted noise, per image.

    .. math:: \frac{1}{chw} \left\|\hat\epsilon_b - \epsilon_b\right\|^2

    Shapes ``(B, c, h, w), (B, c, h, w) -> (B,)``; range ``[0, inf)``; 1 is the expectation for a prediction of zeros.

    Paper: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020, arXiv:2006.11239), equation 14.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> noise_mse(torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]], [[[0.0, 2.0]]]]))
    tensor([5., 2.])
    """
    require_rows("prediction", prediction, noise, "noise")
    return (prediction - noise).square().flatten(1).mean(1)


def noise_cosine(noise: Tensor, prediction: Tensor) -> Tensor:
    r"""Return one minus the cosine between the predicted noise and the noise, each taken as one vector per image.

    .. math:: 1 - \cos(\hat\epsilon_b, \epsilon_b)
        = \tfrac{1}{2} \left\|\frac{\hat\epsilon_b}{\|\hat\epsilon_b\|} - \frac{\epsilon_b}{\|\epsilon_b\|}\right\|^2

    Shapes ``(B, c, h, w), (B, c, h, w) -> (B,)``; range ``[0, 2]``. The vectors run over channels *and* places: a
    cosine along the last axis compares rows of pixels, one along the channels single places, and each lets a prediction
    rescale what it compares. Computed by the right-hand side, which rounding cannot make negative.

    The norm of the prediction is free, so a model may drift in it at no cost: :func:`noise_hybrid` holds it. The
    gradient vanishes near alignment, like the sine of the angle, as that of a squared error does.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> noise = torch.tensor([[[[3.0, 0.0]], [[0.0, 4.0]]]])
    >>> noise_cosine(noise, 2 * noise), noise_cosine(noise, -noise)
    (tensor([0.]), tensor([2.]))
    """
    require_rows("prediction", prediction, noise, "noise")
    directions = F.normalize(prediction.flatten(1), dim=1) - F.normalize(noise.flatten(1), dim=1)
    return directions.square().sum(1) / 2


def noise_hybrid(noise: Tensor, prediction: Tensor, *, norm_weight: float = 0.1) -> Tensor:
    r"""Return :func:`noise_cosine` plus a small penalty on the squared log-ratio of the norms, per image.

    .. math:: 1 - \cos(\hat\epsilon_b, \epsilon_b) + \lambda \log^2 \frac{\|\hat\epsilon_b\|}{\|\epsilon_b\|}

    Shapes ``(B, c, h, w), (B, c, h, w) -> (B,)``; range ``[0, inf)``; 0 only where prediction and noise are equal.
    Twice the norm costs as much as half of it: 0.48 ``norm_weight``. Norms below 1e-12 count as 1e-12.

    Raises:
        InvalidSetting: for shapes that differ, for ``norm_weight`` that is negative or not finite.

    >>> import math, torch
    >>> noise = torch.ones(1, 1, 2, 2)
    >>> noise_hybrid(noise, math.e * noise), noise_hybrid(noise, noise / math.e)
    (tensor([0.1000]), tensor([0.1000]))
    """
    require_weight("norm_weight", norm_weight)
    ratio = _log_norm(prediction) - _log_norm(noise)
    return noise_cosine(noise, prediction) + norm_weight * ratio.square()


class PriorNoise(Term):
    r"""A distance of noises on the prior's own draw, weighted by how far the draw has come.

    .. math:: w(s_b)\, d(\epsilon_b, \hat\epsilon_b)

    ``distance`` is :func:`noise_mse` (the baseline), :func:`noise_cosine` or :func:`noise_hybrid`; ``schedule`` one of
    :mod:`~diffaudit.terms.schedules`, of ``candidate.progress``. Both are functions that return nothing below 0.

    Raises:
        InvalidSetting: in ``forward``, for a candidate without the draw.
    """

    lower_bound = 0.0

    def __init__(
        self, distance: Callable[[Tensor, Tensor], Tensor] = noise_mse, *, schedule: Schedule = constant_weight
    ) -> None:
        super().__init__()
        self.distance = distance
        self.schedule = schedule

    def forward(self, candidate: Candidate) -> Tensor:
        remedy = "The loop makes the prior's own draw when a prior term is in the objective."
        noise = required("noise", candidate.noise, remedy)
        prediction = required("prediction", candidate.prediction, remedy)
        progress = required("progress", candidate.progress, remedy)
        return self.schedule(progress) * self.distance(noise, prediction)


def _log_norm(tensor: Tensor) -> Tensor:
    """``(B,)`` logarithm of each image's norm, finite for zeros."""
    norms: Tensor = torch.linalg.vector_norm(tensor.flatten(1), dim=1)
    return norms.clamp(min=SMALLEST_NORM).log()
