"""Trains estimators of known factors: the attacker's attributes, and the judges' identity factors."""

import torch
from torch import Tensor

from diffaudit.data.faces import FaceFactors
from diffaudit.models.networks import Network
from diffaudit.training.pool import Pool


def attribute_targets(faces: FaceFactors) -> Tensor:
    """``(N, 10)``: pose, expression, illumination, in the order of :data:`~diffaudit.models.attributes.ATTRIBUTES`."""
    return torch.cat([faces.pose, faces.expression, faces.illumination], dim=1)


def regression_loss(
    network: Network, pool: Pool, standardised: Tensor, batch: int, generator: torch.Generator
) -> Tensor:
    """Mean squared error of ``standardised (N, F)`` targets (zero mean, unit variance over the pool)."""
    images, rows = pool.draw(batch, generator)
    error: Tensor = network(images) - standardised[rows]
    return error.square().mean()


@torch.no_grad()
def correlation(network: Network, images: Tensor, targets: Tensor) -> Tensor:
    """``(F,)`` Pearson correlation between estimated and known factors."""
    found = torch.cat([network(part) for part in images.split(256)])
    found, known = (values - values.mean(0) for values in (found, targets))
    return (found * known).sum(0) / (found.square().sum(0) * known.square().sum(0)).sqrt()
