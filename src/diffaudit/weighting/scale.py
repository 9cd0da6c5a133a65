"""The scale of a term: what its values are divided by, so that weights mean the same on every model."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting

ScaleKind = Literal["none", "first", "ema"]

FIRST_STEPS = 10
DECAY = 0.99
LEAST = 1e-8
"""Magnitudes up to this one say nothing about a term's scale: the hinge is satisfied, the term is switched off."""


def next_scale(scale: Tensor, magnitude: Tensor, count: Tensor, kind: ScaleKind) -> Tensor:
    r"""Return the scale after the ``count``-th magnitude, counted from 1.

    .. math:: s_n = s_{n-1} + r_n (m_n - s_{n-1})

    Shapes ``(), (), () -> ()``; range ``[0, inf)`` for magnitudes in it. ``first``: :math:`r_n = 1/n` up to the tenth
    magnitude and 0 from then on, which is the mean of the first ten. ``ema``:
    :math:`r_n = (1 - \beta) / (1 - \beta^n)` with :math:`\beta = 0.99`, the exponential mean with the correction of its
    start in it. ``none``: 1, whatever came.

    Paper: Kingma, Ba, "Adam: A Method for Stochastic Optimization" (2014, arXiv:1412.6980), section 3, for the
    corrected exponential mean.

    >>> first, second = torch.tensor(4.0), torch.tensor(2.0)
    >>> next_scale(first, second, torch.tensor(2), "first"), next_scale(first, second, torch.tensor(2), "none")
    (tensor(3.), tensor(1.))
    """
    number = count.to(scale)
    match kind:
        case "none":
            return torch.ones_like(scale)
        case "first":
            share = torch.where(count <= FIRST_STEPS, 1 / number, torch.zeros_like(scale))
        case "ema":
            rate = torch.full_like(scale, math.log(DECAY))
            share = rate.expm1() / (number * rate).expm1()
    return torch.lerp(scale, magnitude, share)


class Scale(nn.Module):
    """Divides a term's values ``(B,)`` by the :func:`next_scale` of its mean absolute values, the present one included.

    The scale is detached, shared by the batch, and a buffer. It moves in training mode with gradients on, so that
    looking at an objective changes nothing and a group that is only watched does not count its steps. Steps whose mean
    absolute value is 0 (up to 1e-8) or not finite are not counted; before the first that is, values stay as they are.
    With ``rows`` every image of one batch, which stays the same, has a scale of its own: where latents are moved, no
    image may step by what its batch-mates are worth.

    Raises:
        InvalidSetting: for an unknown kind.

    >>> scale = Scale("first")
    >>> scale(torch.tensor([3.0, -5.0])), scale(torch.tensor([3.0, 1.0]))
    (tensor([ 0.7500, -1.2500]), tensor([1.0000, 0.3333]))
    """

    magnitude: Tensor
    count: Tensor

    def __init__(self, kind: ScaleKind, rows: int | None = None) -> None:
        super().__init__()
        if kind not in get_args(ScaleKind):
            raise InvalidSetting("scale", f"be one of {', '.join(get_args(ScaleKind))}", kind)
        self.kind: ScaleKind = kind
        shape = () if rows is None else (rows,)
        self.register_buffer("magnitude", torch.ones(shape))
        self.register_buffer("count", torch.zeros(shape, dtype=torch.long))

    def forward(self, values: Tensor) -> Tensor:
        if self.training and torch.is_grad_enabled():
            sizes = values.detach().abs().to(self.magnitude)
            self._count(sizes if self.magnitude.ndim else sizes.mean())
        return values / self.magnitude

    def _count(self, magnitude: Tensor) -> None:
        # Chosen by `where` and assigned, not branched and written in place: no wait for the device, and a graph that
        # still holds the last scale stays valid.
        counts = magnitude.isfinite() & (magnitude > LEAST)
        count = self.count + counts
        moved = next_scale(self.magnitude, magnitude, count.clamp(min=1), self.kind)
        self.magnitude, self.count = torch.where(counts, moved, self.magnitude), count

    def extra_repr(self) -> str:
        """Return the kind for the printed objective."""
        return f"kind={self.kind!r}"
