"""Identity terms: does the candidate carry the identity sought?"""

from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
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
        embedding = required(
            "embedding", candidate.embedding, "The loop embeds the image when it is given an identity encoder."
        )
        anchor = required("anchor", candidate.anchor, "`identity_anchor` says which vector it is.")
        return identity_distance(embedding, anchor.detach())
