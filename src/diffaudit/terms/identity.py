"""Identity terms: does the candidate carry the identity sought?"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_rows, required
from diffaudit.terms.base import Term


def identity_distance(embedding: Tensor, anchor: Tensor) -> Tensor:
    r"""Return one minus the cosine between each image's embedding and its anchor.

    .. math:: 1 - \cos(e_b, a_b) = \tfrac{1}{2} \left\|\frac{e_b}{\|e_b\|} - \frac{a_b}{\|a_b\|}\right\|^2

    Shapes ``(B, D), (B, D) -> (B,)``; range ``[0, 2]``; lengths do not count, and a vector of zeros has no cosine.
    Computed by the right-hand side, which rounding cannot make negative.

    Paper: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (2018,
    arXiv:1801.07698), for embeddings in which this angle is identity.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> identity_distance(torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([0., 1.])
    """
    require_rows("embedding", embedding, anchor, "anchor")
    return (F.normalize(embedding, dim=1) - F.normalize(anchor, dim=1)).square().sum(1) / 2


class IdentityCosine(Term):
    """:func:`identity_distance` of ``candidate.embedding`` to ``candidate.anchor``.

    The anchor is detached here too, whatever the loop did: otherwise this term would pull the label embedding to
    whatever the image shows, and both would agree about nothing.

    Raises:
        InvalidSetting: in ``forward``, for a candidate without embedding or anchor.
    """

    lower_bound = 0.0

    def forward(self, candidate: Candidate) -> Tensor:
        return identity_distance(*_embedding_and_anchor(candidate))


def identity_margin(
    embedding: Tensor, anchor: Tensor, negatives: Tensor, present: Tensor | None = None, *, margin: float = 0.4
) -> Tensor:
    r"""Return by how much the anchor's cosine misses a lead of ``margin`` over the nearest negative's, per image.

    .. math:: \max\left(0,\; m + \max_n \cos(e_b, e_{b,n}) - \cos(e_b, a_b)\right)

    Shapes ``(B, D), (B, D), (B, N, D), (B, N) -> (B,)``; range ``[0, 2 + margin]``. Each image has its own negatives,
    none of its own class; where ``present`` is False there is none. For an image without any, the first cosine is -1.

    Paper: Schroff, Kalenichenko, Philbin, "FaceNet: A Unified Embedding for Face Recognition and Clustering" (2015,
    arXiv:1503.03832), equation 3, here on cosines with the hardest of the negatives drawn.

    Raises:
        InvalidSetting: for shapes that do not fit, for a margin outside [0, 2], which no cosines could reach.

    >>> import torch
    >>> identity_margin(torch.eye(2)[:1], torch.eye(2)[:1], torch.eye(2)[None, 1:])
    tensor([0.])
    """
    cosines = _negative_cosines(embedding, anchor, negatives, present, margin)
    return F.relu(margin + cosines.amax(1) - F.cosine_similarity(embedding, anchor, dim=1))


def identity_soft_margin(
    embedding: Tensor,
    anchor: Tensor,
    negatives: Tensor,
    present: Tensor | None = None,
    *,
    margin: float = 0.4,
    scale: float = 64.0,
) -> Tensor:
    r"""Return :func:`identity_margin` with a smooth maximum, so that several near rivals push.

    .. math:: \max\left(0,\; m + \frac{1}{\kappa} \log \sum_n e^{\kappa \cos(e_b, e_{b,n})} - \cos(e_b, a_b)\right)

    Shapes ``(B, D), (B, D), (B, N, D), (B, N) -> (B,)``; range ``[0, 2 + margin + log(N) / scale]``: the smooth maximum
    is above the hard one by ``log(N) / scale`` at most, 0.065 for 64 negatives at the default ``scale``.

    Paper: Sun, Cheng, Zhang, Zhang, Zheng, Wang, Wei, "Circle Loss: A Unified Perspective of Pair Similarity
    Optimization" (2020, arXiv:2002.10857), for the smooth maximum under a scale.

    Raises:
        InvalidSetting: for what :func:`identity_margin` refuses, and for a scale that is not above 0.

    >>> import torch
    >>> negatives = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]])
    >>> round(identity_soft_margin(torch.eye(2)[:1], torch.eye(2)[:1], negatives, margin=1.0).item(), 4)
    0.0108
    """
    _require_scale(scale)
    cosines = _negative_cosines(embedding, anchor, negatives, present, margin)
    nearest = (scale * cosines).logsumexp(1) / scale
    return F.relu(margin + nearest - F.cosine_similarity(embedding, anchor, dim=1))


class IdentityMargin(Term):
    """:func:`identity_margin` of ``candidate.embedding`` to its anchor and to its negatives from the bank.

    Anchor and negatives are detached here too, whatever the loop did.

    Raises:
        InvalidSetting: for a margin outside [0, 2]; in ``forward``, for a candidate without embedding, anchor or
            negatives.
    """

    lower_bound = 0.0
    hinge = True

    def __init__(self, *, margin: float = 0.4) -> None:
        super().__init__()
        _require_margin(margin)
        self.margin = margin

    def forward(self, candidate: Candidate) -> Tensor:
        return identity_margin(*_embedding_and_anchor(candidate), *_negatives(candidate), margin=self.margin)

    def extra_repr(self) -> str:
        """Return the margin for the printed objective."""
        return f"margin={self.margin}"


class IdentitySoftMargin(Term):
    """:func:`identity_soft_margin` of ``candidate.embedding`` to its anchor and to its negatives from the bank.

    Anchor and negatives are detached here too, whatever the loop did.

    Raises:
        InvalidSetting: for a margin outside [0, 2], for a scale that is not above 0; in ``forward``, for a candidate
            without embedding, anchor or negatives.
    """

    lower_bound = 0.0
    hinge = True

    def __init__(self, *, margin: float = 0.4, scale: float = 64.0) -> None:
        super().__init__()
        _require_margin(margin)
        _require_scale(scale)
        self.margin = margin
        self.scale = scale

    def forward(self, candidate: Candidate) -> Tensor:
        return identity_soft_margin(
            *_embedding_and_anchor(candidate), *_negatives(candidate), margin=self.margin, scale=self.scale
        )

    def extra_repr(self) -> str:
        """Return margin and scale for the printed objective."""
        return f"margin={self.margin}, scale={self.scale}"


def _embedding_and_anchor(candidate: Candidate) -> tuple[Tensor, Tensor]:
    embedding = required(
        "embedding", candidate.embedding, "The loop embeds the image when it is given an identity encoder."
    )
    anchor = required("anchor", candidate.anchor, "`identity_anchor` says which vector it is.")
    return embedding, anchor.detach()


def _negatives(candidate: Candidate) -> tuple[Tensor, Tensor | None]:
    negatives = required("negatives", candidate.negatives, "The loop draws them when it is given a bank of negatives.")
    return negatives.detach(), candidate.negatives_present


def _negative_cosines(
    embedding: Tensor, anchor: Tensor, negatives: Tensor, present: Tensor | None, margin: float
) -> Tensor:
    """``(B, 1 + N)`` cosines to the negatives, minus infinity where absent; the first column is -1 where all are."""
    _require_margin(margin)
    require_rows("embedding", embedding, anchor, "anchor")
    images, dimension = embedding.shape
    if negatives.ndim != 3 or len(negatives) != images or negatives.shape[2] != dimension:
        raise InvalidSetting(
            "negatives", f"have each image's own vectors, shape ({images}, N, {dimension})", tuple(negatives.shape)
        )
    if present is None:
        present = torch.ones_like(negatives[..., 0], dtype=torch.bool)
    if present.shape != negatives.shape[:2] or present.dtype != torch.bool:
        raise InvalidSetting(
            "present", f"say True or False of every negative, {tuple(negatives.shape[:2])}", tuple(present.shape)
        )
    cosines = torch.einsum("bd,bnd->bn", F.normalize(embedding, dim=1), F.normalize(negatives, dim=2))
    # A column of its own, not a filling: -1 in the place of each absent negative would add to the smooth maximum.
    none = torch.full_like(embedding[:, :1], -math.inf)
    none = none.masked_fill(~present.any(1, keepdim=True), -1.0)
    return torch.cat([none, cosines.masked_fill(~present, -math.inf)], dim=1)


def _require_margin(margin: float) -> None:
    if not 0 <= margin <= 2:
        raise InvalidSetting("margin", "be in [0, 2], for no two cosines are further apart", margin)


def _require_scale(scale: float) -> None:
    if not (math.isfinite(scale) and scale > 0):
        raise InvalidSetting("scale", "be a finite number above 0", scale)
