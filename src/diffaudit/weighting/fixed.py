"""Fixed weights: the same at every step."""

from collections.abc import Mapping

from torch import Tensor

from diffaudit.weighting.base import Weighting, require_weights, weighted_sum


class Fixed(Weighting):
    """:func:`~diffaudit.weighting.base.weighted_sum` with constant weights, ``{group: weight}``.

    Raises:
        InvalidSetting: for weights that are none, negative or not finite at once; in ``forward``, for losses of other
            names than the weights.

    >>> import torch
    >>> Fixed({"cls": 1.0, "id": 0.5})({"id": torch.tensor([2.0]), "cls": torch.tensor([-3.0])}, step=0)
    tensor([-2.])
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        require_weights("weights", weights)
        self._weights = dict(weights)

    def forward(self, losses: dict[str, Tensor], step: int) -> Tensor:
        return weighted_sum(losses, self.weights(step))

    def weights(self, step: int) -> dict[str, float]:
        return dict(self._weights)
