"""Which groups of terms weigh something: in each stage, and whether their weight is given or learned."""

from collections.abc import Mapping, Sequence
from typing import assert_never

from diffaudit.settings.attack import (
    AggregatedWeights,
    AnyWeights,
    FixedWeights,
    Stage,
    StagedWeights,
    UncertaintyWeights,
)
from diffaudit.settings.terms import GROUPS, Group, Terms


def weights_by_stage(weighting: AnyWeights, terms: Terms, stages: Sequence[Stage]) -> list[Mapping[Group, float]]:
    """Each stage's weights by group, one mapping a stage; a learned weight counts as 1.

    Under learned weights a group without terms is left out, whatever its fixed weight.

    >>> from diffaudit.settings.terms import TopKTerm
    >>> weights_by_stage(UncertaintyWeights(), Terms(cls=[TopKTerm(bounded=True)], perc=[]), [None])
    [{'prior': 1.0, 'cls': 1.0, 'id': 1.0, 'reg': 0.01}]
    """
    match weighting:
        case FixedWeights(weights=weights):
            return [weights for _ in stages]
        case UncertaintyWeights(fixed=fixed):
            weighed = dict.fromkeys(learned_groups(weighting, terms), 1.0) | fixed
            return [{group: weighed[group] for group in GROUPS if group in weighed and getattr(terms, group)}] * len(
                stages
            )
        case StagedWeights() | AggregatedWeights():
            return [stage.weights for stage in stages]
        case _:
            assert_never(weighting)


def learned_groups(weighting: UncertaintyWeights, terms: Terms) -> tuple[Group, ...]:
    """The groups whose weight is learned: all that have terms and no fixed weight, but for the regulariser's.

    >>> learned_groups(UncertaintyWeights(fixed={"prior": 0.0}), Terms(perc=[]))
    ('cls', 'id')
    """
    return tuple(group for group in GROUPS if group != "reg" and group not in weighting.fixed and getattr(terms, group))
