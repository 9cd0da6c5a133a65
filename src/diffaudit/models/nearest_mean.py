"""A recogniser as a classifier: the class whose photographs, on average, look most like the picture."""

import hashlib

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder

COSINE_SCALE = 16.0
"""Logits per unit of cosine. It moves probabilities, never a vote."""


def mean_per_class(embeddings: Tensor, labels: Tensor) -> Tensor:
    """``(N, D), (N,) -> (C, D)``: the unit mean embedding of each of the classes ``0 .. C - 1``.

    Raises:
        InvalidSetting: a class between 0 and the largest label has no embedding.

    >>> mean_per_class(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0, 1]))
    tensor([[1., 0.],
            [0., 1.]])
    """
    counts = torch.bincount(labels)
    if len(counts) == 0 or int(counts.min()) == 0:
        raise InvalidSetting("labels", "name every class from 0 on", counts.tolist())
    sums = embeddings.new_zeros(len(counts), embeddings.shape[1]).index_add_(0, labels, embeddings)
    return nn.functional.normalize(sums, dim=1)


class NearestMean(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] to ``(B, C)`` logits: scaled cosines to the classes' mean embeddings.

    Args:
        encoder: gives unit embeddings ``(B, D)``.
        means: ``(C, D)`` unit vectors.
    """

    def __init__(self, encoder: IdentityEncoder, means: Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("means", means.clone())
        self.means: Tensor

    def forward(self, images: Tensor) -> Tensor:
        cosine: Tensor = self.encoder(images) @ self.means.T
        return COSINE_SCALE * cosine


@torch.no_grad()
def nearest_mean_classifier(
    encoder: IdentityEncoder, images: Tensor, labels: Tensor, *, batch: int = 128
) -> Classifier:
    """A classifier of the people in byte ``images (N, 3, H, W)`` with ``labels (N,)``, by nearest mean embedding.

    It judges fairly only where none of these images is judged: an image lies nearer to a mean that it is part of.
    """
    embeddings = torch.cat([encoder(part.float() / 255) for part in images.split(batch)])
    means = mean_per_class(embeddings, labels)
    digest = hashlib.sha256(encoder.fingerprint.encode() + means.cpu().contiguous().numpy().tobytes())
    return Classifier(
        NearestMean(encoder, means),
        size=None,
        fingerprint=digest.hexdigest(),
        no_features="a nearest-mean recogniser has no layer between its embedding and its answer",
    )
