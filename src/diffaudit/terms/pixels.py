"""Pixel terms: how far the picture is from its source, value by value, or in its coarse colours."""

from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
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


def coarse_colour_distance(after: Tensor, before: Tensor, *, grid: int = 8) -> Tensor:
    r"""Return the mean absolute difference of the images' colours, averaged over the cells of a grid, per image.

    .. math:: \frac{1}{3 g^2} \sum_{c, k} \left|\bar x_{b,c,k} - \bar x'_{b,c,k}\right|

    Shapes ``(B, C, H, W), (B, C, H, W) -> (B,)``; range ``[0, 1]`` for images in [0, 1]; :math:`\bar x_k` is the mean
    over cell ``k`` of ``grid`` by ``grid``. Edges and grain may move inside a cell at no cost; what is recoloured or
    lit anew costs all of it. A picture whose class is a colour is no adversarial example once that colour has changed.

    Raises:
        InvalidSetting: for shapes that differ, for a grid that is finer than the images.

    >>> import torch
    >>> image = torch.zeros(1, 3, 4, 4)
    >>> coarse_colour_distance(image + 0.25, image, grid=2)
    tensor([0.2500])
    """
    require_rows("after", after, before, "before")
    if not 1 <= grid <= min(after.shape[-2:]):
        raise InvalidSetting("grid", f"be in [1, {min(after.shape[-2:])}], no finer than the images", grid)
    # Linear, so that the difference of the means is the mean of the difference.
    return adaptive_avg_pool2d(after - before, grid).abs().flatten(1).mean(1)


class CoarseColour(Term):
    """:func:`coarse_colour_distance` between ``candidate.image`` and ``candidate.source``."""

    lower_bound = 0.0

    def __init__(self, *, grid: int = 8) -> None:
        super().__init__()
        if grid < 1:
            raise InvalidSetting("grid", "be a positive integer", grid)
        self.grid = grid

    def forward(self, candidate: Candidate) -> Tensor:
        return coarse_colour_distance(candidate.image, candidate.source.detach(), grid=self.grid)

    def extra_repr(self) -> str:
        """Return the grid for the printed objective."""
        return f"grid={self.grid}"


class PixelDistance(Term):
    """:func:`pixel_distance` between ``candidate.image`` and ``candidate.source``."""

    lower_bound = 0.0

    def forward(self, candidate: Candidate) -> Tensor:
        return pixel_distance(candidate.image, candidate.source.detach())
