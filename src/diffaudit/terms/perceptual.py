"""Perceptual terms: does the candidate still look like its source?"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.terms._checks import require_layers
from diffaudit.terms.base import Term


def feature_map_distance(first: Sequence[Tensor], second: Sequence[Tensor]) -> Tensor:
    r"""Return the mean squared difference of the feature maps, summed over the layers, per image.

    .. math:: \sum_l \frac{1}{C_l H_l W_l} \left\|\phi_l(x_b) - \phi_l(x'_b)\right\|^2

    Shapes ``[(B, C_l, H_l, W_l)], [(B, C_l, H_l, W_l)] -> (B,)``; range ``[0, inf)``. Each layer counts once, whatever
    its size. This is not LPIPS, which normalises channels and has published weights.

    Paper: Johnson, Alahi, Fei-Fei, "Perceptual Losses for Real-Time Style Transfer and Super-Resolution" (2016,
    arXiv:1603.08155), equation 2.

    Raises:
        InvalidSetting: for other than the same layers, at least one, of the same shapes.

    >>> import torch
    >>> zeros, ones = torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)
    >>> feature_map_distance([zeros, zeros[..., :1]], [ones, 2 * ones[..., :1]])
    tensor([5.])
    """
    require_layers(first, second)
    layers = [(one - other).square().flatten(1).mean(1) for one, other in zip(first, second, strict=True)]
    return torch.stack(layers).sum(0)


class Perceptual(Term):
    """:func:`feature_map_distance` between ``candidate.image`` and ``candidate.source``.

    ``extractor`` maps images ``(B, 3, H, W)`` in [0, 1] to a list of feature maps. A module becomes part of the term
    and should be frozen and in evaluation mode; batch statistics would make one image's value depend on the others'.

    Raises:
        InvalidSetting: in ``forward``, where the extractor gives no layer, or other shapes for image and source.
    """

    lower_bound = 0.0

    def __init__(self, extractor: Callable[[Tensor], list[Tensor]]) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, candidate: Candidate) -> Tensor:
        with torch.no_grad():
            source = self.extractor(candidate.source.detach())
        return feature_map_distance(self.extractor(candidate.image), source)
