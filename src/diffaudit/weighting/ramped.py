"""Ramped weights: every group's weight moves from one value to another over the iterations."""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.weighting.base import Weighting, require_weights, weighted_sum
from diffaudit.weighting.staged import Shape, handover_fraction


@dataclass(frozen=True)
class Ramp:
    """A weight from ``start`` at the first iteration to ``end`` at the last."""

    start: float
    end: float
    shape: Shape = "linear"

    def at(self, step: int, steps: int) -> float:
        r"""The weight at iteration ``step`` of ``steps``: :math:`\lambda_0 + f (\lambda_1 - \lambda_0)`.

        :math:`f` is :func:`~diffaudit.weighting.staged.handover_fraction` over the :math:`N - 1` iterations after the
        first. A single iteration has the weight of the start.

        >>> [Ramp(1.0, 0.5).at(step, 3) for step in range(3)], round(Ramp(0.0, 1.0, "cosine").at(1, 5), 4)
        ([1.0, 0.75, 0.5], 0.1464)
        """
        fraction = handover_fraction(step, steps - 1, self.shape) if steps > 1 else 0.0
        return self.start + fraction * (self.end - self.start)


class Ramped(Weighting):
    """:func:`~diffaudit.weighting.base.weighted_sum` with the weights of :class:`Ramp` at each of ``steps`` iterations.

    Raises:
        InvalidSetting: for no groups, weights that are negative or not finite, fewer than one iteration; in
            ``forward``, for losses of other names.

    >>> weighting = Ramped({"entropy": Ramp(0.1, 0.3), "self_attention": Ramp(0.7, 0.3)}, steps=5)
    >>> {group: round(weight, 2) for group, weight in weighting.weights(2).items()}
    {'entropy': 0.2, 'self_attention': 0.5}
    """

    def __init__(self, ramps: Mapping[str, Ramp], *, steps: int) -> None:
        super().__init__()
        require_weights("ramps", {group: ramp.start for group, ramp in ramps.items()})
        require_weights("ramps", {group: ramp.end for group, ramp in ramps.items()})
        if steps < 1:
            raise InvalidSetting("steps", "be a positive number of iterations", steps)
        self._ramps = dict(ramps)
        self._steps = steps

    def forward(self, losses: dict[str, Tensor], step: int) -> Tensor:
        return weighted_sum(losses, self.weights(step))

    def weights(self, step: int) -> dict[str, float]:
        return {group: ramp.at(step, self._steps) for group, ramp in self._ramps.items()}
