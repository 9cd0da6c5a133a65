"""The pixel term: how far the picture is from its source, value by value."""

from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.terms._checks import require_rows
from diffaudit.terms.base import Term


def pixel_distance(after: Tensor, before: Tensor) -> Tensor:
    r"""Return the mean squared difference of the images, :math:`\mathrm{mean}_{c,s} (x_{b,c,s} - x'_{b,c,s})^2`.

    Shapes ``(B, C, H, W), (B, C, H, W) -> (B,)``; range ``[0, 1]`` for images in [0, 1].

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> pixel_distance(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.5))
    tensor([0.2500])
    """
    require_rows("after", after, before, "before")
    return (after - before).square().flatten(1).mean(1)


class PixelDistance(Term):
    """:func:`pixel_distance` between ``candidate.image`` and ``candidate.source``."""

    lower_bound = 0.0

    def forward(self, candidate: Candidate) -> Tensor:
        return pixel_distance(candidate.image, candidate.source.detach())
