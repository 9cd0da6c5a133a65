"""Trains classifiers of identities: the target under audit, and the judges that check it with other eyes."""

import torch
from torch import Tensor, nn

from diffaudit.models.networks import Network
from diffaudit.training.augmentation import random_views
from diffaudit.training.pool import Pool


def classification_loss(
    network: Network, pool: Pool, batch: int, generator: torch.Generator, *, erase: float = 0.0, smoothing: float = 0.0
) -> Tensor:
    """Cross-entropy on random views of ``batch`` pictures of the pool."""
    images, rows = pool.draw(batch, generator)
    logits = network(random_views(images, generator, colour=0.05, erase=erase))
    return nn.functional.cross_entropy(logits, pool.labels[rows], label_smoothing=smoothing)


@torch.no_grad()
def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Share of ``images (N, 3, H, W)`` whose largest logit is their label's."""
    hits = [network(part).argmax(1) == truth for part, truth in zip(images.split(256), labels.split(256), strict=True)]
    return float(torch.cat(hits).double().mean())
