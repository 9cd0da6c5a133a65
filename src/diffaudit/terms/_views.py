"""What attention terms read off a candidate's view: branches, steps, and layers with their weights."""

import math
from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from diffaudit.attention import AttentionBranch, AttentionLayer, AttentionView
from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_weight
from diffaudit.terms.attention_maps import label_map, label_shares, resized_picture

LayerWeights = Mapping[AttentionLayer, float]
"""How much each layer counts; one that is not named does not."""


def require_layer_weights(layers: LayerWeights | None, kind: Literal["cross", "self"]) -> LayerWeights | None:
    """Refuse weights of layers of another kind, negative ones, and weights of which none is above 0."""
    if layers is None:
        return None
    for layer, weight in layers.items():
        require_weight(f"layers[{layer.name}]", weight)
        if layer.kind != kind:
            raise InvalidSetting("layers", f"be {kind}-attention for this term", f"{layer.kind} at {layer.name}")
    if not any(layers.values()):
        raise InvalidSetting("layers", "count for something: at least one weight above 0", dict(layers))
    return dict(layers)


def view_of(candidate: Candidate) -> AttentionView:
    """The candidate's view, refused where nobody recorded one."""
    if candidate.attention is None:
        raise InvalidSetting(
            "attention", "be filled in the candidate for this term", None, "The loop records it when a term reads it."
        )
    return candidate.attention


def weighed_layers(
    branch: AttentionBranch, layers: LayerWeights | None, kind: Literal["cross", "self"]
) -> LayerWeights:
    """The layers to read and their weights; ``layers`` None: all recorded ones of the kind, once each.

    Raises:
        InvalidSetting: for a branch without a step, a layer that was not recorded at every step.
    """
    if not branch.steps:
        raise InvalidSetting("attention", "hold at least one recorded step", 0, "Widen the window of steps.")
    weights = {layer: 1.0 for layer in branch.steps[0] if layer.kind == kind} if layers is None else layers
    if not weights:
        raise InvalidSetting("attention", f"hold maps of at least one {kind}-attention layer", 0)
    _require_recorded(branch, weights)
    return weights


def paired_steps(
    one: AttentionBranch, other: AttentionBranch, layers: LayerWeights
) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Weight and maps of both branches, at every step and layer; a layer's weight is spread over the steps."""
    if len(one.steps) != len(other.steps):
        raise InvalidSetting("attention", "hold the same steps in every branch", (len(one.steps), len(other.steps)))
    _require_recorded(other, layers)
    for maps, others in zip(one.steps, other.steps, strict=True):
        for layer, weight in layers.items():
            yield weight / len(one.steps), maps[layer], others[layer]


def share_of(branch: AttentionBranch, maps: Tensor) -> Tensor:
    """``(B, HW)``: the share of the branch's label, of what its prompt's two labels get."""
    if branch.rival is None:
        raise InvalidSetting(
            "rival", "be known for this term", None, "Prompts should name both labels: `prompt_with` makes them."
        )
    return label_shares(label_map(maps, branch.label), label_map(maps, branch.rival))


def mask_for(candidate: Candidate, maps: Tensor) -> Tensor | None:
    """``(B, HW)``: the candidate's mask on the grid of ``maps (B, HW, T)``; None without one."""
    if candidate.mask is None:
        return None
    return resized_picture(candidate.mask, math.isqrt(maps.shape[1])).flatten(1).to(maps)


def weighted_mean(values: list[Tensor], weights: list[float]) -> Tensor:
    """The mean of equally shaped tensors, each counting by its weight."""
    return torch.stack([weight * value for weight, value in zip(weights, values, strict=True)]).sum(0) / sum(weights)


def _require_recorded(branch: AttentionBranch, layers: LayerWeights) -> None:
    for layer in layers:
        if any(layer not in step for step in branch.steps):
            raise InvalidSetting("attention", f"hold {layer.name} at every step", "a step without it")
