"""Attention terms of one label: is its attention gathered at a few places, or spread over the picture?"""

import math

import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_matrix
from diffaudit.terms._views import LayerWeights, require_layer_weights, view_of, weighed_layers, weighted_mean
from diffaudit.terms.attention_maps import FLOOR, label_map, require_tokens, resized_map
from diffaudit.terms.base import Term


def attention_variance(maps: Tensor, tokens: Tensor) -> Tensor:
    r"""Return the variance of attention over space and the label's tokens jointly, per image.

    .. math:: \frac{1}{n - 1} \sum_{s,\, t \in \text{label}_b} \left(A_{b,s,t} - \bar A_b\right)^2, \qquad
        n = HW \cdot |\text{label}_b|

    Shapes ``(B, HW, T), (B, T) -> (B,)``; range ``[0, 0.5]``. Divided by ``n - 1``, as published. With one token it is
    the variance over space; with several, what tells the tokens apart counts as well, though no place does.

    Paper: Chen, Chen, Chen, Zhang, Zou, Shi, "Diffusion Models for Imperceptible and Transferable Adversarial Attack"
    (2023, arXiv:2305.08192), the term on cross-attention.

    Raises:
        InvalidSetting: for shapes that do not fit, for maps of one place.

    >>> maps = torch.tensor([[[0.2, 0.5, 0.3], [0.0, 0.7, 0.3]]])
    >>> attention_variance(maps, torch.tensor([[True, False, False]]))
    tensor([0.0200])
    """
    require_tokens(maps, tokens)
    _require_places(maps)
    counted = tokens[:, None, :].to(maps)
    numbers = maps.shape[1] * counted.sum((1, 2))
    mean = (maps * counted).sum((1, 2)) / numbers
    return ((maps - mean[:, None, None]).square() * counted).sum((1, 2)) / (numbers - 1)


def attention_entropy(maps: Tensor) -> Tensor:
    r"""Return how far a map's entropy over space stays below that of an even one, per image.

    .. math:: 1 - \frac{H(p_b)}{\log HW}, \qquad p_{b,s} = \frac{A_{b,s}}{\sum_{s'} A_{b,s'}}, \quad
        H(p) = -\sum_s p_s \log p_s

    Shapes ``(B, HW) -> (B,)``; range ``[0, 1]``: 0 where all places attend equally, 1 where one does alone. Minimising
    it spreads the attention. Minimising :math:`H` itself, as it circulates, gathers it; and over tokens instead of
    places it says how sure a place is of its token, not how many places look.

    Raises:
        InvalidSetting: for a map that is no matrix or has one place.

    >>> attention_entropy(torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.3, 0.3, 0.0, 0.0], [0.0, 0.0, 0.2, 0.0]]))
    tensor([0.0000, 0.5000, 1.0000])
    """
    require_matrix("maps", maps)
    _require_places(maps)
    shares = maps / maps.sum(1, keepdim=True).clamp(min=FLOOR)
    entropy = -(shares * shares.clamp(min=FLOOR).log()).sum(1)
    return (1 - entropy / math.log(maps.shape[1])).clamp(0, 1)


class AttentionVariance(Term):
    """:func:`attention_variance` of the true label, on the mean of the perturbed branch's maps over layers and steps.

    ``side`` is the grid to which all layers' maps are brought first. ``joint`` takes the variance over space and the
    label's tokens, as published; otherwise the tokens are summed and it is over space. ``layers`` says how much each
    counts; None: all cross-attention that was recorded counts equally.

    Raises:
        InvalidSetting: for a side below 2, for weights that are negative or of self-attention; in ``forward``, for a
            candidate without recorded maps of these layers.
    """

    lower_bound = 0.0

    def __init__(self, *, side: int = 8, joint: bool = False, layers: LayerWeights | None = None) -> None:
        super().__init__()
        self.side = _checked_side(side)
        self.joint = joint
        self.layers = require_layer_weights(layers, "cross")

    def forward(self, candidate: Candidate) -> Tensor:
        label = view_of(candidate).perturbed.label
        maps = _mean_map(candidate, self.layers, self.side)
        if self.joint:
            return attention_variance(maps, label)
        summed = label_map(maps, label)[..., None]
        return attention_variance(summed, torch.ones_like(label[:, :1]))

    def extra_repr(self) -> str:
        """Return the grid and the form for the printed objective."""
        return f"side={self.side}, joint={self.joint}"


class AttentionEntropy(Term):
    """:func:`attention_entropy` of the true label, on the mean of the perturbed branch's maps over layers and steps.

    ``side`` is the grid to which all layers' maps are brought first. ``layers`` says how much each counts; None: all
    cross-attention that was recorded counts equally.

    Raises:
        InvalidSetting: for a side below 2, for weights that are negative or of self-attention; in ``forward``, for a
            candidate without recorded maps of these layers.
    """

    lower_bound = 0.0

    def __init__(self, *, side: int = 8, layers: LayerWeights | None = None) -> None:
        super().__init__()
        self.side = _checked_side(side)
        self.layers = require_layer_weights(layers, "cross")

    def forward(self, candidate: Candidate) -> Tensor:
        label = view_of(candidate).perturbed.label
        return attention_entropy(label_map(_mean_map(candidate, self.layers, self.side), label))

    def extra_repr(self) -> str:
        """Return the grid for the printed objective."""
        return f"side={self.side}"


def _mean_map(candidate: Candidate, layers: LayerWeights | None, side: int) -> Tensor:
    """``(B, side * side, T)``: the perturbed branch's maps on one grid, averaged over layers and steps."""
    branch = view_of(candidate).perturbed
    chosen = weighed_layers(branch, layers, "cross")
    values, weights = [], []
    for step in branch.steps:
        for layer, weight in chosen.items():
            by_token = step[layer].transpose(1, 2)
            resized = resized_map(by_token.flatten(0, 1), side)
            values.append(resized.unflatten(0, by_token.shape[:2]).transpose(1, 2))
            weights.append(weight)
    return weighted_mean(values, weights)


def _checked_side(side: int) -> int:
    if side < 2:
        raise InvalidSetting("side", "be at least 2, for one place has no spread", side)
    return side


def _require_places(maps: Tensor) -> None:
    if maps.shape[1] < 2:
        raise InvalidSetting("maps", "have at least two places", maps.shape[1])
