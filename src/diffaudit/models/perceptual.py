"""Perceptual feature networks: what two pictures look like, beyond their pixels."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from diffaudit.models.classifier import resized


class Maps(Protocol):
    """What has feature maps."""

    def maps(self, images: Tensor) -> list[Tensor]:
        """``images (B, 3, H, W) -> [(B, C_l, H_l, W_l), ...]``, from fine to coarse."""


class PerceptualFeatures(nn.Module):
    """Feature maps ``images (B, 3, H, W) -> [(B, C_l, H_l, W_l), ...]`` of a frozen network, as they are."""

    def __init__(self, network: Maps, *, size: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.size = size
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.network.maps(resized(images, self.size))


def unit_channels(maps: Sequence[Tensor]) -> list[Tensor]:
    """The feature maps with channels of length 1 at every place, so that a layer's loudness says nothing.

    For measuring alone: at channels that are all 0 its gradient is up to 1e12, so the loss
    (:func:`~diffaudit.terms.hierarchical_distance`) smooths the norm.

    >>> unit_channels([torch.tensor([[[[3.0]], [[4.0]]]])])[0].flatten()
    tensor([0.6000, 0.8000])
    """
    return [nn.functional.normalize(layer, dim=1) for layer in maps]


def perceptual_distance(features: PerceptualFeatures, first: Tensor, second: Tensor) -> Tensor:
    """``(B,)``: squared distance of channel-normalised features, averaged over space, summed over layers.

    The form of LPIPS without its learned channel weights (Zhang et al., *The Unreasonable Effectiveness of Deep
    Features*, 2018, arXiv 1801.03924), on whatever features are given: not to be called LPIPS.
    """
    pairs = zip(unit_channels(features(first)), unit_channels(features(second)), strict=True)
    return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)
