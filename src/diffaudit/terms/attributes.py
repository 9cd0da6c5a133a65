"""Attribute terms: does the candidate keep what its source gave, pose, expression and light, if not its pixels?"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, get_args

import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_rows, require_weight
from diffaudit.terms.base import Term

Distance = Literal["l1", "l2"]
ATTRIBUTE_WEIGHTS: Mapping[str, float] = MappingProxyType({"pose": 0.3, "expression": 0.3, "illumination": 0.2})


def attribute_distance(
    found: Mapping[str, Tensor],
    source: Mapping[str, Tensor],
    weights: Mapping[str, float] = ATTRIBUTE_WEIGHTS,
    *,
    distance: Distance = "l1",
) -> Tensor:
    r"""Return the weighted distances of each image's attributes to its source's.

    .. math:: \sum_a \lambda_a \frac{1}{n_a} \sum_i |v_{b,a,i} - v'_{b,a,i}|^q

    with :math:`q` 1 for ``l1`` and 2 for ``l2``. Shapes ``{name: (B, n_a)}, {name: (B, n_a)} -> (B,)``; range
    ``[0, inf)``. Attributes come *standardised* by their public spread: unscaled, degrees drown coefficients. Each
    counts by its weight, however many numbers it has; without a weight it does not count.

    Raises:
        InvalidSetting: for no weights, weights that are negative or not finite, an unknown distance, an attribute that
            ``found`` or ``source`` lacks, shapes that differ.

    >>> import torch
    >>> pose, light = torch.tensor([[1.0, -2.0, 0.0]]), torch.tensor([[3.0]])
    >>> found, source = {"pose": pose, "light": light}, {"pose": 0 * pose, "light": 0 * light}
    >>> attribute_distance(found, source, {"pose": 1.0, "light": 0.1})
    tensor([1.3000])
    """
    _require_weights(weights, distance)
    for name in weights:
        if name not in found or name not in source:
            raise InvalidSetting(
                f"weights.{name}",
                f"name an attribute that is estimated: {', '.join(sorted(found.keys() & source.keys())) or 'none'}",
                name,
                "Leave it out, or take an estimator that knows it.",
            )
        require_rows(f"found.{name}", found[name], source[name], f"source.{name}")
    parts = []
    for name, weight in weights.items():
        difference = found[name] - source[name]
        parts.append(weight * (difference.abs() if distance == "l1" else difference.square()).mean(1))
    return torch.stack(parts).sum(0)


class Attributes(Term):
    """:func:`attribute_distance` between ``candidate.image`` and ``candidate.source``.

    ``estimator`` maps images ``(B, 3, H, W)`` in [0, 1] to standardised attributes by name, differentiably. A module
    becomes part of the term and should be frozen and in evaluation mode.

    Raises:
        InvalidSetting: for no weights, weights that are negative or not finite and an unknown distance at once; in
            ``forward``, for an attribute that the estimator does not know.
    """

    lower_bound = 0.0

    def __init__(
        self,
        estimator: Callable[[Tensor], Mapping[str, Tensor]],
        weights: Mapping[str, float] = ATTRIBUTE_WEIGHTS,
        *,
        distance: Distance = "l1",
    ) -> None:
        super().__init__()
        _require_weights(weights, distance)
        self.estimator = estimator
        self.weights = dict(weights)
        self.distance: Distance = distance

    def forward(self, candidate: Candidate) -> Tensor:
        with torch.no_grad():
            source = self.estimator(candidate.source.detach())
        return attribute_distance(self.estimator(candidate.image), source, self.weights, distance=self.distance)

    def extra_repr(self) -> str:
        """Return weights and distance for the printed objective."""
        return f"weights={self.weights}, distance={self.distance}"


def _require_weights(weights: Mapping[str, float], distance: str) -> None:
    if not weights:
        raise InvalidSetting("weights", "name at least one attribute", dict(weights))
    for name, weight in weights.items():
        require_weight(f"weights.{name}", weight)
    if distance not in get_args(Distance):
        raise InvalidSetting("distance", f"be one of {', '.join(get_args(Distance))}", distance)
