"""Regularisers: do the trained parameters stay where the prior knows them?"""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_matrix
from diffaudit.terms.base import ParameterTerm


def norm_penalty(embeddings: Tensor) -> Tensor:
    r"""Return the mean squared difference between the embeddings' lengths and 1.

    .. math:: \frac{1}{n} \sum_y \left(\|e_y\| - 1\right)^2

    Shapes ``(n, D) -> ()``, one row per class, *before* normalisation; range ``[0, inf)``. Directions are free.

    Raises:
        InvalidSetting: for embeddings that are no matrix.

    >>> import torch
    >>> norm_penalty(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor(8.)
    """
    require_matrix("embeddings", embeddings)
    lengths: Tensor = torch.linalg.vector_norm(embeddings, dim=1)
    return (lengths - 1).square().mean()


def lora_norm(matrices: Iterable[Tensor]) -> Tensor:
    r"""Return the sum of the squared Frobenius norms of the low-rank matrices.

    .. math:: \sum_l \left(\|A_l\|_F^2 + \|B_l\|_F^2\right)

    Shapes ``[any] -> ()``, the A and B of every layer in any order; range ``[0, inf)``; 0 for no matrices. The sum is
    over all layers and entries, so a weight for it is small.

    Paper: Hu, Shen, Wallis, Allen-Zhu, Li, Wang, Wang, Chen, "LoRA: Low-Rank Adaptation of Large Language Models"
    (2021, arXiv:2106.09685), for A and B.

    >>> import torch
    >>> lora_norm([torch.ones(2, 3), 2 * torch.ones(3, 2)])
    tensor(30.)
    """
    return sum((matrix.square().sum() for matrix in matrices), start=torch.zeros(()))


class Regulariser(ParameterTerm):
    r""":func:`norm_penalty` of the label embeddings plus ``lora_weight`` times :func:`lora_norm`.

    .. math:: \frac{1}{n} \sum_y (\|e_y\| - 1)^2 + \lambda \sum_l (\|A_l\|_F^2 + \|B_l\|_F^2)

    ``embeddings`` is called at every step for the ``(n, D)`` embeddings before normalisation, so that an embedding
    made by a network is seen as it is now. It and ``lora`` are read, not owned: these parameters are saved with the
    generator, and are not part of this term's state. Without LoRA ``lora`` is empty.

    Raises:
        InvalidSetting: for ``lora_weight`` that is negative or not finite; in ``forward``, for embeddings that are no
            matrix.
    """

    lower_bound = 0.0

    def __init__(self, embeddings: Callable[[], Tensor], lora: Sequence[Tensor], *, lora_weight: float) -> None:
        super().__init__()
        if not (math.isfinite(lora_weight) and lora_weight >= 0):
            raise InvalidSetting("lora_weight", "be a finite number of at least 0", lora_weight)
        # In tuples torch registers neither a module nor a parameter: the generator owns and saves them.
        self._embeddings = (embeddings,)
        self._lora = tuple(lora)
        self.lora_weight = lora_weight

    def forward(self) -> Tensor:
        (embeddings,) = self._embeddings
        return norm_penalty(embeddings()) + self.lora_weight * lora_norm(self._lora)

    def extra_repr(self) -> str:
        """Return the LoRA part for the printed objective."""
        return f"lora_matrices={len(self._lora)}, lora_weight={self.lora_weight}"
