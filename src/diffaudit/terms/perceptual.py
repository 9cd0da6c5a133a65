"""Perceptual terms: does the candidate still look like its source?"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_layers, require_weight
from diffaudit.terms.base import Term

DEPTH_WEIGHTS = (0.2, 0.5, 0.3)
"""Weights of shallow, middle and deep layers."""


def depth_weights(layers: int) -> tuple[float, ...]:
    """Return weights for so many layers, which sum to 1: those of shallow, middle and deep, interpolated between.

    >>> depth_weights(3)
    (0.2, 0.5, 0.3)
    >>> [round(weight, 3) for weight in depth_weights(5)]
    [0.114, 0.2, 0.286, 0.229, 0.171]
    """
    places = np.linspace(0, 1, layers) if layers > 1 else [0.5]
    weights = np.interp(places, np.linspace(0, 1, len(DEPTH_WEIGHTS)), DEPTH_WEIGHTS)
    return tuple(float(weight) for weight in weights / weights.sum())


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


def hierarchical_distance(
    first: Sequence[Tensor], second: Sequence[Tensor], weights: Sequence[float] | None = None
) -> Tensor:
    r"""Return the squared differences of channel-normalised feature maps, averaged over places, weighted by depth.

    .. math:: \sum_l \frac{w_l}{H_l W_l} \sum_{h,w}
        \left\|\frac{\phi_l(x_b)_{hw}}{\|\phi_l(x_b)_{hw}\|} - \frac{\phi_l(x'_b)_{hw}}{\|\phi_l(x'_b)_{hw}\|}\right\|^2

    Shapes ``[(B, C_l, H_l, W_l)], [(B, C_l, H_l, W_l)] -> (B,)``, one weight a layer, from shallow to deep (None:
    :func:`depth_weights`); range ``[0, 4 sum(weights)]``. Every place's channels have length 1, so that the weights,
    not the sizes of the activations, say what a layer counts. The norm is taken as ``sqrt(1e-8 + sum of squares)``,
    whose gradient is finite for channels that are all 0. This has the form of LPIPS without its published weights, and
    is not called so.

    Paper: Zhang, Isola, Efros, Shechtman, Wang, "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric" (2018, arXiv:1801.03924), equation 1, for the normalisation.

    Raises:
        InvalidSetting: for other than the same layers, at least one, of the same shapes, for other than one weight a
            layer, for weights that are negative or not finite.

    >>> import torch
    >>> red, green = torch.tensor([[[[5.0]], [[0.0]]]]), torch.tensor([[[[0.0]], [[0.1]]]])
    >>> hierarchical_distance([red, red, red], [green, red, red]), hierarchical_distance([red] * 3, [green] * 3)
    (tensor([0.4000]), tensor([2.0000]))
    """
    require_layers(first, second)
    weights = depth_weights(len(first)) if weights is None else weights
    _require_weights(weights)
    if len(weights) != len(first):
        raise InvalidSetting("weights", f"hold one weight a layer, {len(first)} in all", tuple(weights))
    pairs = zip(weights, first, second, strict=True)
    layers = [
        weight * (_unit_channels(one) - _unit_channels(other)).square().sum(1).flatten(1).mean(1)
        for weight, one, other in pairs
    ]
    return torch.stack(layers).sum(0)


class HierarchicalPerceptual(Term):
    """:func:`hierarchical_distance` between ``candidate.image`` and ``candidate.source``.

    ``extractor`` is as in :class:`Perceptual`, with one feature map a weight, from shallow to deep; without weights
    :func:`depth_weights` of as many maps as it gives.

    Raises:
        InvalidSetting: for no weights, weights that are negative or not finite at once; in ``forward``, where the
            extractor gives another number of layers, or other shapes for image and source.
    """

    lower_bound = 0.0

    def __init__(self, extractor: Callable[[Tensor], list[Tensor]], *, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        if weights is not None:
            _require_weights(weights)
        self.extractor = extractor
        self.weights = None if weights is None else tuple(weights)

    def forward(self, candidate: Candidate) -> Tensor:
        with torch.no_grad():
            source = self.extractor(candidate.source.detach())
        return hierarchical_distance(self.extractor(candidate.image), source, self.weights)

    def extra_repr(self) -> str:
        """Return the weights for the printed objective."""
        return f"weights={self.weights}"


def _unit_channels(layer: Tensor) -> Tensor:
    return layer / (1e-8 + layer.square().sum(1, keepdim=True)).sqrt()


def _require_weights(weights: Sequence[float]) -> None:
    if not weights:
        raise InvalidSetting("weights", "hold at least one weight", tuple(weights))
    for layer, weight in enumerate(weights):
        require_weight(f"weights[{layer}]", weight)
