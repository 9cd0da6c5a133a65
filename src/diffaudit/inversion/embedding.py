"""Label embeddings: from the number of a class to the identity embedding that is sought for it."""

import math
from abc import ABC, abstractmethod
from itertools import pairwise

import torch
from scipy.stats import chi2
from torch import Tensor, nn


class LabelEmbedding(nn.Module, ABC):
    """``n`` classes to raw embeddings ``(n, D)``; the generator reads them normalised. Starts at the anchors given."""

    anchors: Tensor
    is_identity = True
    """Whether its vectors are of the identity encoder's space, so that identities can be compared with them."""

    @abstractmethod
    def raw(self) -> Tensor:
        """``(n, D)`` before normalisation, with gradient."""

    def forward(self, rows: Tensor) -> Tensor:
        """Unit embeddings ``(B, D)`` of the classes numbered ``rows (B,)``."""
        return nn.functional.normalize(self.raw()[rows], dim=1)

    @torch.no_grad()
    def travel(self) -> Tensor:
        """``(n,)`` angle in degrees between every embedding and where it began, in [0, 180]."""
        now, begun = (nn.functional.normalize(vectors, dim=1) for vectors in (self.raw(), self.anchors))
        # The arc cosine would lose small angles: in float32 the cosines of all under 0.01 degrees are 1.
        return torch.rad2deg(2 * torch.atan2((now - begun).norm(dim=1), (now + begun).norm(dim=1)))

    def confine(self) -> None:
        """Brings the parameters back to where they may be; called after every step."""


class TableEmbedding(LabelEmbedding):
    """A free row of ``D`` numbers a class."""

    def __init__(self, anchors: Tensor) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors.clone())
        self.table = nn.Parameter(anchors.clone())

    def raw(self) -> Tensor:
        return self.table


class MlpEmbedding(LabelEmbedding):
    """One-hot classes through a small network with layer norm, added to the anchors; its last layer starts at 0."""

    def __init__(self, anchors: Tensor, *, hidden: int = 256, layers: int = 2) -> None:
        super().__init__()
        self.register_buffer("anchors", anchors.clone())
        widths = [len(anchors), *[hidden] * layers]
        body: list[nn.Module] = []
        for inputs, outputs in pairwise(widths):
            body += [nn.Linear(inputs, outputs), nn.LayerNorm(outputs), nn.ReLU()]
        last = nn.Linear(hidden, anchors.shape[1])
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.body = nn.Sequential(*body, last)

    def raw(self) -> Tensor:
        offset: Tensor = self.body(torch.eye(len(self.anchors), device=self.anchors.device))
        return self.anchors + offset


class ManifoldEmbedding(LabelEmbedding):
    r"""Coefficients in the leading principal subspace of public embeddings: :math:`e = \mu + \sum_i c_i s_i v_i`.

    Optimisation cannot leave the region where the prior has ever been: directions outside the subspace do not exist,
    and coefficients, in standard deviations, are pulled back to the radius that holds 99 % of a Gaussian of that
    dimension (the Mahalanobis radius :math:`\sqrt{\chi^2_{d, 0.99}}`).

    Args:
        anchors: ``(n, D)`` unit vectors; the start is their projection.
        public: ``(N, D)`` embeddings of public pictures.
        explained_variance: share of the public variance that the subspace keeps, in (0, 1].
    """

    def __init__(self, anchors: Tensor, public: Tensor, *, explained_variance: float = 0.99) -> None:
        super().__init__()
        mean = public.mean(0)
        _, spread, directions = torch.linalg.svd(public - mean, full_matrices=False)
        variance = spread.square() / max(1, len(public) - 1)
        # Fewer pictures than dimensions leave directions without any variance: they are not part of the manifold.
        rank = int((spread > spread[0] * max(public.shape) * torch.finfo(spread.dtype).eps).sum())
        kept = min(rank, int((variance.cumsum(0) / variance.sum() < explained_variance).sum()) + 1)
        basis = directions[:kept] * variance[:kept].sqrt()[:, None]
        coefficients = (anchors - mean) @ directions[:kept].T / variance[:kept].sqrt()
        self.radius = math.sqrt(float(chi2.ppf(0.99, kept)))
        self.register_buffer("mean", mean)
        self.register_buffer("basis", basis)
        self.mean: Tensor
        self.basis: Tensor
        self.coefficients = nn.Parameter(coefficients)
        self.confine()
        self.register_buffer("anchors", nn.functional.normalize(self.raw().detach(), dim=1))

    @property
    def dimension(self) -> int:
        """Number of principal directions kept."""
        return len(self.basis)

    def raw(self) -> Tensor:
        return self.mean + self.coefficients @ self.basis

    @torch.no_grad()
    def confine(self) -> None:
        norm = self.coefficients.norm(dim=1, keepdim=True)
        self.coefficients.mul_((self.radius / norm.clamp(min=1e-12)).clamp(max=1))


class WordEmbedding(LabelEmbedding):
    """Word vectors, a free row of ``D`` numbers a class: textual inversion.

    They are sought in units of the length at which they begin, so that steps and regulariser mean what they mean for
    unit embeddings, and handed on with their length, which says something to a text encoder.

    Args:
        start: ``(D,)`` vectors of the initial words, token after token; every class begins there.
        classes: ``n``.
    """

    is_identity = False

    def __init__(self, start: Tensor, classes: int) -> None:
        super().__init__()
        self.length = float(start.norm())
        self.register_buffer("anchors", start.repeat(classes, 1))
        self.table = nn.Parameter(self.anchors / self.length)

    def raw(self) -> Tensor:
        return self.table

    def forward(self, rows: Tensor) -> Tensor:
        """Word vectors ``(B, D)`` of the classes numbered ``rows (B,)``, of any length."""
        return self.length * self.table[rows]
