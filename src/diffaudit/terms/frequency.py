"""Frequency terms: is the picture as sharp, and of the same grain, as the one it was made from?"""

import importlib.util
from typing import Literal

import torch
from kornia.filters import laplacian
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting, MissingExtra
from diffaudit.terms._checks import require_rows
from diffaudit.terms.attention_maps import masked_mean, resized_picture
from diffaudit.terms.base import Term

Detail = Literal["laplacian", "wavelet"]
LEVELS = 2
"""Of the wavelet decomposition: details of two and of four pixels."""


def laplacian_distance(after: Tensor, before: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean absolute difference of the images' Laplacians inside the mask, per image.

    .. math:: \frac{\sum_s M_{b,s} \, \frac{1}{3} \sum_c \left|\Delta x_{b,c,s} - \Delta x'_{b,c,s}\right|}
        {\sum_s M_{b,s}}

    Shapes ``(B, C, H, W), (B, C, H, W), (B, 1, h, w) -> (B,)``; range ``[0, 1]`` for images in [0, 1]: the 3 x 3 kernel
    has a sum of absolute values of 1, and borders are reflected. A mask of another side is resized; None counts all.
    An even change of brightness costs nothing here, a change of grain or edges does.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> image = torch.zeros(1, 3, 5, 5)
    >>> dot = image.clone()
    >>> dot[:, :, 2, 2] = 1.0
    >>> laplacian_distance(dot, image) * 25, laplacian_distance(image + 0.5, image)
    (tensor([1.]), tensor([0.]))
    """
    require_rows("after", after, before, "before")
    # Linear, so that the difference's Laplacian is the Laplacians' difference.
    return _inside(laplacian(after - before, 3), mask)


def wavelet_distance(after: Tensor, before: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Return the mean absolute difference of the images' Haar details inside the mask, per image.

    .. math:: \frac{1}{3 J} \sum_{j=1}^{J} \sum_{o \in \{h, v, d\}} \frac{\sum_s M_{b,s} \, \frac{1}{3}
        \sum_c 2^{-j} \left|W_{j,o}(x - x')_{b,c,s}\right|}{\sum_s M_{b,s}}

    Shapes ``(B, C, H, W), (B, C, H, W), (B, 1, h, w) -> (B,)``; range ``[0, 1]`` for images in [0, 1]: without the
    factor, details of level ``j`` reach :math:`2^j`. Two levels, three orientations, through the library ptwt (extra
    `wavelets`). Unlike the Laplacian, it counts coarser grain as much as the finest.

    Paper: Mallat, "A theory for multiresolution signal decomposition: the wavelet representation" (1989).

    Raises:
        InvalidSetting: for shapes that differ, for sides that four does not divide.
        MissingExtra: ptwt is not installed.

    >>> image = torch.zeros(1, 3, 4, 4)
    >>> stripes = image.clone()
    >>> stripes[..., ::2] = 1.0  # nothing but vertical detail of level 1: one of six bands, at half its reach
    >>> wavelet_distance(stripes, image) * 6
    tensor([0.5000])
    """
    require_rows("after", after, before, "before")
    if any(side % 2**LEVELS for side in after.shape[2:]):
        raise InvalidSetting("after", f"have sides that {2**LEVELS} divides", tuple(after.shape))
    try:
        import ptwt
    except ImportError as error:
        raise MissingExtra("ptwt", "wavelets") from error
    _, *details = ptwt.wavedec2(after - before, "haar", level=LEVELS, mode="zero")
    bands = [
        _inside(band / 2 ** (LEVELS - number), mask)
        for number, orientations in enumerate(details)
        for band in orientations
    ]
    return torch.stack(bands).mean(0)


class Frequency(Term):
    """:func:`laplacian_distance` or :func:`wavelet_distance` of ``candidate.image`` to its source, inside its mask.

    Raises:
        InvalidSetting: for a detail that is neither ``laplacian`` nor ``wavelet``.
        MissingExtra: `wavelet` without ptwt.
    """

    lower_bound = 0.0

    def __init__(self, *, detail: Detail = "laplacian") -> None:
        super().__init__()
        if detail not in ("laplacian", "wavelet"):
            raise InvalidSetting("detail", "be laplacian or wavelet", detail)
        if detail == "wavelet" and importlib.util.find_spec("ptwt") is None:  # before the first of many steps
            raise MissingExtra("ptwt", "wavelets")
        self.detail: Detail = detail

    def forward(self, candidate: Candidate) -> Tensor:
        distance = laplacian_distance if self.detail == "laplacian" else wavelet_distance
        return distance(candidate.image, candidate.source.detach(), candidate.mask)

    def extra_repr(self) -> str:
        """Return the detail for the printed objective."""
        return f"detail={self.detail}"


def _inside(details: Tensor, mask: Tensor | None) -> Tensor:
    """``(B,)``: the mean magnitude of ``details (B, C, h, w)`` inside the mask, which is brought to their grid."""
    magnitude = details.abs().mean(1)
    return masked_mean(magnitude.flatten(1), None if mask is None else _fitted(mask, magnitude))


def _fitted(mask: Tensor, details: Tensor) -> Tensor:
    """``(B, H * W)``: the mask on the grid of ``details (B, H, W)``."""
    if mask.ndim != 4 or mask.shape[:2] != (len(details), 1):
        raise InvalidSetting("mask", f"be one plane per image, ({len(details)}, 1, h, w)", tuple(mask.shape))
    height, width = details.shape[1:]
    if mask.shape[2:] == (height, width):
        return mask.flatten(1).to(details)
    return resized_picture(mask, height).flatten(1).to(details)
