"""Staged weights: each stage has its own, and hands over to the next."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.weighting.base import Weighting, require_weights, weighted_sum

Shape = Literal["linear", "cosine"]


@dataclass(frozen=True)
class StageWeights:
    """The weights ``{group: weight}`` that a stage hands over to from its step ``start`` on."""

    start: int
    weights: Mapping[str, float]


def handover_fraction(elapsed: int, handover: int, shape: Shape) -> float:
    r"""Return how much of the new stage's weights counts ``elapsed`` steps after its start.

    With :math:`a = \min(1, n / N)` the fraction is :math:`a` (``linear``) or
    :math:`\tfrac{1}{2} (1 - \cos \pi a)` (``cosine``); range ``[0, 1]``; 1 from the start where ``handover`` is 0.

    >>> (
    ...     handover_fraction(1, 4, "linear"),
    ...     round(handover_fraction(1, 4, "cosine"), 4),
    ...     handover_fraction(0, 0, "linear"),
    ... )
    (0.25, 0.1464, 1.0)
    """
    if elapsed >= handover:
        return 1.0
    share = elapsed / handover
    return share if shape == "linear" else (1 - math.cos(math.pi * share)) / 2


class Staged(Weighting):
    r""":func:`~diffaudit.weighting.base.weighted_sum` with weights that change from stage to stage.

    .. math:: \lambda_g(n) = (1 - f) \lambda_g^{\text{before}} + f \lambda_g^{\text{stage}}

    with ``f`` the :func:`handover_fraction` of the stage that step ``n`` falls in. The first stage has nothing to take
    over from and counts at once. A group that a stage does not name has weight 0 in it.

    Raises:
        InvalidSetting: for no stages, a first stage that does not start at 0, stages that do not follow one another or
            leave less than ``handover`` steps between them, weights that are negative or not finite, an unknown shape;
            in ``forward``, for losses of other names than those of all stages together.

    >>> weighting = Staged([StageWeights(0, {"cls": 1.0}), StageWeights(10, {"cls": 1.0, "id": 0.8})], handover=4)
    >>> [weighting.weights(step)["id"] for step in (0, 10, 12, 14)]
    [0.0, 0.0, 0.4, 0.8]
    """

    def __init__(self, stages: Sequence[StageWeights], handover: int = 0, shape: Shape = "linear") -> None:
        super().__init__()
        if not stages or stages[0].start != 0:
            raise InvalidSetting("stages", "begin with one that starts at 0", [stage.start for stage in stages])
        if handover < 0:
            raise InvalidSetting("handover", "be a number of steps of at least 0", handover)
        if shape not in get_args(Shape):
            raise InvalidSetting("shape", f"be one of {', '.join(get_args(Shape))}", shape)
        for number, stage in enumerate(stages):
            require_weights(f"stages[{number}].weights", stage.weights)
        if any(later.start - earlier.start < max(1, handover) for earlier, later in itertools.pairwise(stages)):
            raise InvalidSetting(
                "stages",
                f"start at least {max(1, handover)} steps apart, so that each hand-over ends before the next",
                [stage.start for stage in stages],
            )
        self._names = tuple(dict.fromkeys(name for stage in stages for name in stage.weights))
        self._stages = tuple((stage.start, dict(stage.weights)) for stage in stages)
        self._handover = handover
        self._shape: Shape = shape

    def forward(self, losses: dict[str, Tensor], step: int) -> Tensor:
        return weighted_sum(losses, self.weights(step))

    def weights(self, step: int) -> dict[str, float]:
        index = max((number for number, (start, _) in enumerate(self._stages) if start <= step), default=0)
        start, after = self._stages[index]
        before = self._stages[index - 1][1] if index > 0 else after
        fraction = handover_fraction(step - start, self._handover, self._shape) if index > 0 else 1.0
        return {name: (1 - fraction) * before.get(name, 0.0) + fraction * after.get(name, 0.0) for name in self._names}
