"""What a weighting is: it combines the groups of terms by name into one value per image."""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting


class Weighting(nn.Module, ABC):
    """Combines losses by group name, never by position: ``{name: (B,)}, step -> (B,)``."""

    @abstractmethod
    def forward(self, losses: dict[str, Tensor], step: int) -> Tensor:
        """Combined values ``(B,)``. Names that are not exactly the weighting's raise ``InvalidSetting``."""

    @abstractmethod
    def weights(self, step: int) -> dict[str, float]:
        """Weight of every group at ``step``, for logs; a group whose weight is exactly 0 needs no gradient."""

    def learned_groups(self) -> frozenset[str]:
        """Groups whose weight is learned on their loss, which therefore may not be negative: see `require_bounded`."""
        return frozenset()

    def confine(self) -> None:
        """Brings learned weights back to where they may be; called after every step."""


def weighted_sum(losses: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    r"""Return the losses weighted by name and summed, per image.

    .. math:: \sum_g \lambda_g L_{g,b}

    Shapes ``{name: (B,)} -> (B,)``. A loss of weight 0 is left out, not multiplied by 0, so that a NaN in a term that
    is only watched does no harm.

    Raises:
        InvalidSetting: where the names of the two are not the same.

    >>> import torch
    >>> weighted_sum({"cls": torch.tensor([1.0, 2.0]), "id": torch.tensor([4.0, 4.0])}, {"id": 0.5, "cls": 1.0})
    tensor([3., 4.])
    """
    require_names(weights, losses)
    parts = [weights[name] * loss for name, loss in losses.items() if weights[name] != 0]
    return torch.stack(parts).sum(0) if parts else torch.zeros_like(next(iter(losses.values())))


def require_names(weights: Iterable[str], groups: Iterable[str]) -> None:
    """Refuse weights that are not named exactly like the groups, before a missing one silently counts as 0 or 1."""
    found, wanted = set(weights), set(groups)
    if found != wanted:
        raise InvalidSetting(
            "weights",
            f"name exactly the groups that have terms: {', '.join(sorted(wanted))}",
            sorted(found),
            f"Missing: {', '.join(sorted(wanted - found)) or 'none'}; "
            f"unknown: {', '.join(sorted(found - wanted)) or 'none'}.",
        )


def require_weights(name: str, weights: Mapping[str, float]) -> None:
    """Refuse no weights at all, and weights that are negative (they would turn a term round) or not finite."""
    if not weights:
        raise InvalidSetting(name, "name at least one group", dict(weights))
    for group, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise InvalidSetting(f"{name}.{group}", "be a finite number of at least 0", weight)


def require_bounded(learned: Collection[str], bounds: Mapping[str, tuple[str, float]]) -> None:
    """Refuse a term without lower bound in a group whose weight is learned.

    Where the loss of a group can be negative, a weight that learns on it has no best value: it grows without end.
    ``bounds`` is ``{term: (group, lower bound)}``.

    Raises:
        InvalidSetting: naming the first such term and the forms that are never negative.

    >>> require_bounded({"id"}, {"cls_topk": ("cls", -math.inf), "id": ("id", 0.0)})
    >>> require_bounded({"cls"}, {"cls_topk": ("cls", -math.inf)})
    Traceback (most recent call last):
        ...
    diffaudit.errors.InvalidSetting: `cls_topk.lower_bound` should be 0, for the weight of its group `cls` is learned.
    Found -inf. Use the form that is never negative (`softplus` of a margin, `1 - Var/Var_max` of a variance), or give
    the group a fixed weight.
    """
    for name, (group, bound) in bounds.items():
        if group in learned and bound < 0:
            raise InvalidSetting(
                f"{name}.lower_bound",
                f"be 0, for the weight of its group `{group}` is learned",
                bound,
                "Use the form that is never negative (`softplus` of a margin, `1 - Var/Var_max` of a variance), or "
                "give the group a fixed weight.",
            )
