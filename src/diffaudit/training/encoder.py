"""Trains identity encoders: ArcFace over the public identities, helped by the factors that made the faces."""

import math

import torch
from scipy.linalg import eigh
from scipy.stats import rankdata
from torch import Tensor, nn

from diffaudit.models.networks import Network, build_network
from diffaudit.training.augmentation import random_views
from diffaudit.training.pool import Pool


def arcface_logits(
    embeddings: Tensor, centres: Tensor, labels: Tensor, *, margin: float = 0.3, scale: float = 24.0
) -> Tensor:
    r"""Logits :math:`s \cos(\theta_{b,c} + m [c = y_b])` of unit vectors.

    Shapes ``(B, D), (C, D), (B,) -> (B, C)``. Beyond :math:`\theta > \pi - m` the margin is applied to the cosine
    instead, which keeps the loss monotone. Deng et al., *ArcFace*, 2019, arXiv 1801.07698.

    >>> arcface_logits(torch.eye(2), torch.eye(2), torch.tensor([0, 1]), margin=0.0, scale=1.0)
    tensor([[1., 0.],
            [0., 1.]])
    """
    cosine = (embeddings @ centres.T).clamp(-1, 1)
    sine = (1 - cosine.square()).clamp(min=1e-9).sqrt()
    shifted = cosine * math.cos(margin) - sine * math.sin(margin)
    shifted = torch.where(cosine > -math.cos(margin), shifted, cosine - margin * math.sin(margin))
    own = nn.functional.one_hot(labels, len(centres)).bool()
    return scale * torch.where(own, shifted, cosine)


class EncoderTrainer(nn.Module):
    """An encoder with what its training needs beside it.

    A free ArcFace centre for each of 4,000 identities learns only when its own few pictures come by. The public faces
    have known factors, so the centres are a function of them: ``c = normalise(g(factors))``, and every picture teaches
    all centres. A linear read-out of the factors from the penultimate features helps the trunk to find them at all.
    """

    def __init__(self, architecture: str, dimension: int, factors: int) -> None:
        super().__init__()
        self.encoder: Network = build_network(architecture, dimension)
        self.centres = nn.Sequential(nn.Linear(factors, 256), nn.SiLU(), nn.Linear(256, dimension))
        self.factors = nn.Linear(self.encoder.head.in_features, factors)

    def loss(self, pool: Pool, identities: Tensor, batch: int, erase: float, generator: torch.Generator) -> Tensor:
        """Squared error of the factors read out, in units of their variance, plus a tenth of the ArcFace cross-entropy.

        With the full ArcFace loss from the start a fresh trunk learns skin and hair colour and little else.
        """
        images, rows = pool.draw(batch, generator)
        features = self.encoder.features(random_views(images, generator, colour=0.04, erase=erase))
        embeddings = nn.functional.normalize(self.encoder.head(features), dim=1)
        centres = nn.functional.normalize(self.centres(2 * identities - 1), dim=1)
        logits = arcface_logits(embeddings, centres, pool.labels[rows], margin=0.2)
        error = (self.factors(features) - identities[pool.labels[rows]]) / identities.std(0)
        loss: Tensor = error.square().mean() + 0.1 * nn.functional.cross_entropy(logits, pool.labels[rows])
        return loss


@torch.no_grad()
def discriminate(encoder: Network, images: Tensor, labels: Tensor, *, ridge: float = 0.1) -> None:
    r"""Sets the encoder's head to Fisher's linear discriminants of its penultimate features, their mean taken off.

    ``images (N, 3, H, W) uint8``, ``labels (N,)``. The rows solve :math:`S_b v = \lambda (S_w + \epsilon I) v`, with
    the covariances between and within people and ``ridge`` of the mean within-variance as :math:`\epsilon`, so that
    the photographs of one person vary by about 1 in every direction. ArcFace over centres that are a function of
    factors leaves all embeddings in a narrow cone (measured: a mean cosine of 0.99 between people), which ranks well
    but tells a diffusion model little.

    Fisher, *The Use of Multiple Measurements in Taxonomic Problems*, 1936; as a last layer of speaker embeddings:
    Dehak et al., *Front-End Factor Analysis for Speaker Verification*, 2011.
    """
    features = torch.cat([encoder.features(part.float() / 255) for part in images.split(256)]).double()
    mean = features.mean(0)
    counts = torch.bincount(labels).double()
    means = torch.zeros(len(counts), len(mean)).double().index_add(0, labels, features - mean) / counts[:, None]
    inside = features - mean - means[labels]
    between, within = (means * counts[:, None]).T @ means / len(features), inside.T @ inside / len(features)
    within += ridge * within.diagonal().mean() * torch.eye(len(within))
    _, vectors = eigh(between.numpy(), within.numpy())
    head = torch.from_numpy(vectors.T[::-1][: encoder.head.out_features].copy())
    encoder.head.weight.copy_(head)
    encoder.head.bias.copy_(-head @ mean)


@torch.no_grad()
def verification_auc(encoder: Network, images: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve over all pairs: is the cosine of two photographs higher when they show one person?

    0.5 is chance, also for an encoder that answers the same to everything: equal cosines share their rank.
    """
    embeddings = nn.functional.normalize(torch.cat([encoder(part) for part in images.split(256)]), dim=1)
    cosine = embeddings @ embeddings.T
    upper = torch.ones_like(cosine).triu(1).bool()
    same = (labels[:, None] == labels[None])[upper]
    ranks = torch.from_numpy(rankdata(cosine[upper].numpy()))
    positives = int(same.sum())
    return float((ranks[same].sum() - positives * (positives + 1) / 2) / (positives * (len(same) - positives)))
