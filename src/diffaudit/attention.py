"""What has been seen of a diffusion model's attention: layers, branches, and the view of them that terms read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer of a UNet.

    Attributes:
        name: its path in the UNet, as ``up_blocks.1.attentions.0.transformer_blocks.0.attn2``.
        place: on the way down, in the middle, or on the way up.
        kind: ``cross`` where keys are tokens of the condition, ``self`` where they are places of the picture.
        level: how often the latent's side is halved there; 0: its own grid.
    """

    name: str
    place: Literal["down", "mid", "up"]
    kind: Literal["cross", "self"]
    level: int = 0


AttentionMaps = Mapping[AttentionLayer, Tensor]
"""Probabilities of one step, by layer. Cross: averaged over heads, ``(B, H*W, T)``; self: ``(B, heads, H*W, H*W)``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionBranch:
    """The recorded attention of one run through the prior, under one prompt an image.

    Attributes:
        steps: the maps of each recorded step, in the order in which they were taken.
        label: ``(B, T)`` boolean: the tokens of the label that each image's prompt is about.
        rival: ``(B, T)`` boolean: the tokens of the other label in the same prompt; None where it names one alone.
    """

    steps: tuple[AttentionMaps, ...]
    label: Tensor
    rival: Tensor | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class AttentionView:
    """Attention of the same ``B`` images in up to three branches, at the same layers and steps.

    Attributes:
        perturbed: the latent under attack, with gradient; ``label`` is the true class, ``rival`` the distractor.
        clean: the clean latent under the same prompt, without gradient, run once.
        distractor: the clean latent under the prompt with both names exchanged: its ``label`` is the distractor and its
            ``rival`` the true class; None where no term asked for it.
    """

    perturbed: AttentionBranch
    clean: AttentionBranch
    distractor: AttentionBranch | None = None
