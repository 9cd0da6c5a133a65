"""Uncertainty weighting: every group learns its weight on its own loss."""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.weighting.base import Weighting, require_names, require_weights, weighted_sum

CLAMP = 4.0
"""``log sigma^2`` stays in [-4, 4]: weights from 0.0092 to 27.3."""


def uncertainty_loss(
    losses: Mapping[str, Tensor], log_variances: Mapping[str, Tensor], *, delta: float = 0.05
) -> Tensor:
    r"""Return the losses weighted by their learned uncertainties and summed by name, per image.

    .. math:: \sum_g \frac{L_{g,b} + \delta}{2 \sigma_g^2} + \tfrac{1}{2} \log \sigma_g^2

    Shapes ``{name: (B,)}, {name: ()} -> (B,)``, the second in :math:`s = \log \sigma^2`; range ``(-inf, inf)``. For
    losses of at least 0 the mean over the batch has one minimum in :math:`s_g`, at :math:`\log(\bar L_g + \delta)`,
    where the group contributes :math:`\tfrac{1}{2} (1 + \log(\bar L_g + \delta))`: the logarithm of a geometric mean,
    which rewards most what is small already. ``delta`` moves no gradient of the losses; without it a loss that reaches
    0 takes :math:`\sigma` to 0 and its weight to infinity.

    Two short forms circulate: :math:`e^{-s} L + s` is twice this one, the same minimum at twice the rate;
    :math:`L / \sigma^2 + \log \sigma` has its minimum at :math:`\log 2L`, which is another method.

    Paper: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene Geometry and
    Semantics" (2018, arXiv:1705.07115), equation 7 with the factor 1/2 kept for every loss; ``delta`` is ours.

    Raises:
        InvalidSetting: where the names of the two are not the same.

    >>> losses = {"cls": torch.tensor([1.95, 3.95]), "id": torch.tensor([0.95, 0.95])}
    >>> uncertainty_loss(losses, {"cls": torch.tensor(0.0), "id": torch.tensor(0.0)})
    tensor([1.5000, 2.5000])
    """
    require_names(log_variances, losses)
    return torch.stack([(losses[name] + delta) * (-s).exp() / 2 + s / 2 for name, s in log_variances.items()]).sum(0)


class Uncertainty(Weighting):
    r""":func:`uncertainty_loss` of the learned groups plus a fixed weight times the loss of every other group.

    The parameters ``log_variances`` hold :math:`\log \sigma^2` by group name, so that a state finds its groups again
    whatever joined them since. They learn slowly, by default at a tenth of the main rate, and without weight decay,
    which would pull every weight to 1/2. After each step :meth:`confine` brings them back into [-4, 4]. Clamped where
    it is used instead, one that has stepped outside would have no gradient left and stay there for good; at the bound
    itself it keeps its gradient, and returns as soon as its loss asks for it.

    Args:
        groups: names of the groups whose weights are learned; their terms must have a lower bound of 0.
        initial: weight at the start by group, :math:`\log \sigma^2 = -\log 2 \lambda`; 1/2 for those not named.
        fixed: weights of the groups outside the learned sum, such as a regulariser's.
        delta: added to every learned group's loss.

    Raises:
        InvalidSetting: for no groups, a group that is no identifier, or is learned and fixed; an initial weight of
            another group, or outside the clamp; a fixed weight that is negative or not finite; a ``delta`` that is
            negative or not finite; in ``forward``, for losses of other names.

    >>> weighting = Uncertainty(["cls", "id"], initial={"cls": 1.0}, fixed={"reg": 0.01})
    >>> {group: round(weight, 3) for group, weight in weighting.weights(0).items()}
    {'cls': 1.0, 'id': 0.5, 'reg': 0.01}
    >>> weighting({"reg": torch.zeros(1), "id": torch.tensor([1.95]), "cls": torch.tensor([0.95])}, step=0).item()
    1.653...
    """

    def __init__(
        self,
        groups: Iterable[str],
        *,
        initial: Mapping[str, float] | None = None,
        fixed: Mapping[str, float] | None = None,
        delta: float = 0.05,
    ) -> None:
        super().__init__()
        learned = tuple(dict.fromkeys(groups))
        start, kept = dict(initial or {}), dict(fixed or {})
        if not learned or not all(group.isidentifier() for group in learned):
            raise InvalidSetting("groups", "name at least one group, each by an identifier", list(learned))
        if unknown := sorted(set(start) - set(learned)):
            raise InvalidSetting("initial", f"name groups that are learned: {', '.join(learned)}", unknown)
        if twice := sorted(set(kept) & set(learned)):
            raise InvalidSetting("fixed", "name groups that are not learned", twice)
        if kept:
            require_weights("fixed", kept)
        if not (math.isfinite(delta) and delta >= 0):
            raise InvalidSetting("delta", "be a finite number of at least 0", delta)
        least, most = math.exp(-CLAMP) / 2, math.exp(CLAMP) / 2
        for group, weight in start.items():
            if not least <= weight <= most:
                raise InvalidSetting(f"initial.{group}", f"be in [{least:.4f}, {most:.1f}]", weight)
        self.log_variances = nn.ParameterDict(
            {group: nn.Parameter(torch.tensor(-math.log(2 * start.get(group, 0.5)))) for group in learned}
        )
        self._fixed = kept
        self._delta = delta

    def forward(self, losses: dict[str, Tensor], step: int) -> Tensor:
        require_names([*self.log_variances, *self._fixed], losses)
        learned = {name: losses[name] for name in self.log_variances}
        value = uncertainty_loss(learned, dict(self.log_variances.items()), delta=self._delta)
        return value + weighted_sum({name: losses[name] for name in self._fixed}, self._fixed) if self._fixed else value

    def weights(self, step: int) -> dict[str, float]:
        return {name: math.exp(-value) / 2 for name, value in self.logged().items()} | self._fixed

    def learned_groups(self) -> frozenset[str]:
        return frozenset(self.log_variances)

    @torch.no_grad()
    def confine(self) -> None:
        for parameter in self.log_variances.values():
            parameter.clamp_(-CLAMP, CLAMP)

    @torch.no_grad()
    def logged(self) -> dict[str, float]:
        """``log sigma^2`` by group as numbers, in one transfer from the device."""
        return dict(zip(self.log_variances, torch.stack(list(self.log_variances.values())).tolist(), strict=True))

    def at_clamp(self) -> dict[str, float]:
        """The groups whose ``log sigma^2`` sits at a bound, and that bound: their weight is not the learned one."""
        return {name: value for name, value in self.logged().items() if abs(value) >= CLAMP}

    def extra_repr(self) -> str:
        """Return what is not learned for the printed objective."""
        return f"fixed={self._fixed}, delta={self._delta}"
