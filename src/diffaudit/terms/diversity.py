"""Diversity terms: do the images of one class differ from each other?"""

import warnings

from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.terms._checks import require_labels, require_matrix, required
from diffaudit.terms.base import BatchTerm


def embedding_concentration(embedding: Tensor, target: Tensor) -> Tensor:
    r"""Return how far the unit embeddings of each class stay below their largest variance, repeated for its images.

    .. math:: 1 - \frac{\mathrm{Var}_y}{\mathrm{Var}_{\max}} = \left\|\frac{1}{n_y} \sum_{b: y_b = y} e_b\right\|^2,
        \qquad \mathrm{Var}_y = 1 - \left\|\frac{1}{n_y} \sum_{b: y_b = y} e_b\right\|^2, \quad \mathrm{Var}_{\max} = 1

    Shapes ``(B, D), (B,) -> (B,)``; range ``[0, 1]``: 1 where a class's embeddings are all the same, 0 where they
    cancel out. Computed by the norm of the mean, which rounding cannot make negative. The negative variance itself, as
    it circulates, goes below 0, where a learned weighting drives it without end. A class with one image has no
    variance: it gets 0, not the formula's 1, and no gradient.

    Paper: Mardia and Jupp, "Directional Statistics" (2000), for variances of unit vectors.

    Raises:
        InvalidSetting: for embeddings that are no matrix, for other than one label per row.

    >>> import torch
    >>> embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.6, 0.8], [1.0, 0.0]])
    >>> embedding_concentration(embedding, torch.tensor([0, 0, 1, 1, 2]))
    tensor([0.5000, 0.5000, 1.0000, 1.0000, 0.0000])
    """
    require_matrix("embedding", embedding)
    require_labels(target, len(embedding))
    mates = (target[:, None] == target).to(embedding)
    counts = mates.sum(1)
    means = mates @ F.normalize(embedding, dim=1) / counts[:, None]
    return means.square().sum(1).masked_fill(counts < 2, 0.0)


class Diversity(BatchTerm):
    """:func:`embedding_concentration` of ``candidate.embedding`` over the images of each target class in the batch.

    A class with one image in the batch counts 0, and the term says so once through :mod:`warnings`. The training loop
    shows two of each class where this term counts, so that an even batch leaves none alone.

    Raises:
        InvalidSetting: in ``forward``, for a candidate without embedding.
    """

    lower_bound = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def forward(self, candidate: Candidate) -> Tensor:
        embedding = required(
            "embedding", candidate.embedding, "The loop embeds the image when it is given an identity encoder."
        )
        if not self._told:
            self._tell(candidate.target)
        return embedding_concentration(embedding, candidate.target)

    def _tell(self, target: Tensor) -> None:
        counts = target.unique(return_counts=True)[1]
        alone = int((counts < 2).sum())
        if alone > 0:
            self._told = True
            warnings.warn(
                f"{alone} of {len(counts)} classes have one image in a batch of {len(target)}: their diversity is 0. "
                "Make `batch` a multiple of the images of a class (`image.per_class`, by default 2).",
                stacklevel=3,
            )
