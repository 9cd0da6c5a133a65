"""Attention terms of two labels: does attention go from the true class to a distractor, and evenly over the steps?"""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_rows
from diffaudit.terms._views import (
    LayerWeights,
    mask_for,
    paired_steps,
    require_layer_weights,
    share_of,
    view_of,
    weighed_layers,
    weighted_mean,
)
from diffaudit.terms.attention_maps import label_map, masked_mean
from diffaudit.terms.base import Term

Norm = Literal["l1", "l2"]


def attention_contrast(shares: Tensor, mask: Tensor | None = None, *, margin: float = 0.2) -> Tensor:
    r"""Return by how much the distractor misses a lead of ``margin`` over the true label in attention, per image.

    .. math:: \max\left(0,\; m - \bar A^{\text{distractor}}_b + \bar A^{\text{true}}_b\right), \qquad
        \bar A_b = \frac{\sum_s M_{b,s} A_{b,s}}{\sum_s M_{b,s}}

    Shapes ``(B, HW), (B, HW) -> (B,)``; range ``[0, 1 + margin]``. ``shares`` are the true label's, of what both labels
    get (:func:`.label_shares`); the distractor's are one minus them. Inside a ``mask`` of zeros nothing counts: 0.

    Raises:
        InvalidSetting: for shapes that differ, for a margin outside [0, 1], which no shares could reach.

    >>> attention_contrast(torch.tensor([[0.5, 0.75], [0.25, 0.1]]), margin=0.25)
    tensor([0.5000, 0.0000])
    """
    _require_margin(margin)
    # Each place's own lead: with a mask of zeros the margin must not stay behind.
    lead = masked_mean(margin - (1 - shares) + shares, mask)
    return F.relu(lead)


def attention_replacement(true: Tensor, distractor: Tensor, mask: Tensor | None = None, *, norm: Norm = "l1") -> Tensor:
    r"""Return the mean distance between the true label's attention and the distractor's, per image.

    .. math:: \frac{\sum_s M_{b,s} \left|A^{\text{true}}_{b,s} - A^{\text{distractor}}_{b,s}\right|^p}{\sum_s M_{b,s}},
        \qquad p = 1 \;(\text{l1}),\; 2 \;(\text{l2})

    Shapes ``(B, HW), (B, HW), (B, HW) -> (B,)``; range ``[0, 1]``. Both are shares of the two labels that their own
    prompts name (:func:`.label_shares`): attention itself is less in a longer prompt, and would differ for that alone.

    Paper: Hertz, Mokady, Tenenbaum, Aberman, Pritch, Cohen-Or, "Prompt-to-Prompt Image Editing with Cross Attention
    Control" (2022, arXiv:2208.01626), for maps that are exchanged between prompts at the same layer and step.

    Raises:
        InvalidSetting: for shapes that differ, for a norm that is neither.

    >>> true, distractor = torch.tensor([[0.9, 0.5]]), torch.tensor([[0.4, 0.5]])
    >>> attention_replacement(true, distractor), attention_replacement(true, distractor, norm="l2")
    (tensor([0.2500]), tensor([0.1250]))
    """
    _require_norm(norm)
    require_rows("true", true, distractor, "distractor")
    difference = true - distractor
    return masked_mean(difference.abs() if norm == "l1" else difference.square(), mask)


def attention_drift(maps: Tensor) -> Tensor:
    r"""Return how much a label's attention changes from one recorded step to the next, per image.

    .. math:: \frac{1}{S - 1} \sum_{i=2}^{S} \frac{1}{HW} \sum_s \left|A_{b,i,s} - A_{b,i-1,s}\right|

    Shapes ``(B, S, HW) -> (B,)``; range ``[0, 1]``. One step alone has nothing to differ from: 0.

    Raises:
        InvalidSetting: for another shape.

    >>> attention_drift(torch.tensor([[[0.1, 0.5], [0.3, 0.5], [0.3, 0.1]]]))
    tensor([0.1500])
    """
    if maps.ndim != 3 or maps.numel() == 0:
        raise InvalidSetting("maps", "hold the label's map at every step, (B, S, HW)", tuple(maps.shape))
    changes = maps.diff(dim=1).abs()
    return changes.mean(2).sum(1) / max(1, changes.shape[1])


class AttentionContrast(Term):
    """:func:`attention_contrast` of the perturbed branch inside ``candidate.mask``, averaged over layers and steps.

    ``layers`` says how much each counts; None: all cross-attention that was recorded counts equally.

    Raises:
        InvalidSetting: for a margin outside [0, 1], for weights that are negative or of self-attention; in ``forward``,
            for a candidate without recorded maps of these layers, or whose prompt names no distractor.
    """

    lower_bound = 0.0

    def __init__(self, *, margin: float = 0.2, layers: LayerWeights | None = None) -> None:
        super().__init__()
        _require_margin(margin)
        self.margin = margin
        self.layers = require_layer_weights(layers, "cross")

    def forward(self, candidate: Candidate) -> Tensor:
        branch = view_of(candidate).perturbed
        values, weights = [], []
        for weight, maps, _ in paired_steps(branch, branch, weighed_layers(branch, self.layers, "cross")):
            mask = mask_for(candidate, maps)
            values.append(attention_contrast(share_of(branch, maps), mask, margin=self.margin))
            weights.append(weight)
        return weighted_mean(values, weights)

    def extra_repr(self) -> str:
        """Return the margin for the printed objective."""
        return f"margin={self.margin}"


class AttentionReplacement(Term):
    """:func:`attention_replacement` of the perturbed branch by the distractor branch, inside ``candidate.mask``.

    At the same layer and step, averaged over both. The distractor branch is detached here too, whatever the loop did:
    otherwise it would come to meet the other. ``layers`` says how much each counts; None: all cross-attention that was
    recorded counts equally.

    Raises:
        InvalidSetting: for a norm that is neither ``l1`` nor ``l2``, for weights that are negative or of
            self-attention; in ``forward``, for a candidate without recorded maps of these layers in both branches, or
            whose prompts do not name both labels.
    """

    lower_bound = 0.0

    def __init__(self, *, norm: Norm = "l1", layers: LayerWeights | None = None) -> None:
        super().__init__()
        _require_norm(norm)
        self.norm: Norm = norm
        self.layers = require_layer_weights(layers, "cross")

    def forward(self, candidate: Candidate) -> Tensor:
        view = view_of(candidate)
        if view.distractor is None:
            raise InvalidSetting(
                "distractor", "be recorded for this term", None, "Run the clean latent with the distractor's prompt."
            )
        chosen = weighed_layers(view.perturbed, self.layers, "cross")
        values, weights = [], []
        for weight, maps, others in paired_steps(view.perturbed, view.distractor, chosen):
            true, distractor = share_of(view.perturbed, maps), share_of(view.distractor, others).detach()
            values.append(attention_replacement(true, distractor, mask_for(candidate, maps), norm=self.norm))
            weights.append(weight)
        return weighted_mean(values, weights)

    def extra_repr(self) -> str:
        """Return the norm for the printed objective."""
        return f"norm={self.norm}"


class AttentionDrift(Term):
    """:func:`attention_drift` of the true label over the perturbed branch's steps, averaged over layers.

    ``layers`` says how much each counts; None: all cross-attention that was recorded counts equally.

    Raises:
        InvalidSetting: for weights that are negative or of self-attention; in ``forward``, for a candidate without
            recorded maps of these layers.
    """

    lower_bound = 0.0

    def __init__(self, *, layers: LayerWeights | None = None) -> None:
        super().__init__()
        self.layers = require_layer_weights(layers, "cross")

    def forward(self, candidate: Candidate) -> Tensor:
        branch = view_of(candidate).perturbed
        chosen = weighed_layers(branch, self.layers, "cross")
        values = [
            attention_drift(torch.stack([label_map(step[layer], branch.label) for step in branch.steps], dim=1))
            for layer in chosen
        ]
        return weighted_mean(values, list(chosen.values()))


def _require_margin(margin: float) -> None:
    if not (math.isfinite(margin) and 0 <= margin <= 1):
        raise InvalidSetting("margin", "be in [0, 1], for no two shares are further apart", margin)


def _require_norm(norm: str) -> None:
    if norm not in ("l1", "l2"):
        raise InvalidSetting("norm", "be l1 or l2", norm)
