"""Rules between the terms, the weighting and the stages of an inversion: each says what is wrong, or None."""

from collections.abc import Callable, Sequence

from diffaudit.settings.attack import (
    AggregatedWeights,
    AnyWeights,
    FixedWeights,
    Stage,
    StagedWeights,
    UncertaintyWeights,
)
from diffaudit.settings.terms import GROUPS, Terms, TopKTerm
from diffaudit.settings.weighed import learned_groups, weights_by_stage

Rule = Callable[[Terms, AnyWeights, Sequence[Stage]], str | None]


def stages_weigh_something(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """Every stage that takes steps has a weight above 0, in whichever section weights are given."""
    match weighting:
        case FixedWeights(weights=weights):
            if any(weights.values()):
                return None
            return f"`weighting.weights` should be above 0 for at least one group. Found {weights}."
        case UncertaintyWeights():
            if learned_groups(weighting, terms):
                return None
            rule = "leave at least one group with terms whose weight is learned"
            return f"`weighting.fixed` should {rule}. Found {', '.join(weighting.fixed)}."
        case StagedWeights() | AggregatedWeights():
            idle = [stage.name for stage in stages if stage.steps > 0 and not any(stage.weights.values())]
            if not idle:
                return None
            return (
                "`stages` should each have a weight above 0, for else nothing trains. Found none in "
                f"{', '.join(idle)}. Give one, or 0 steps."
            )


def weighed_groups_have_terms(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """A group with a weight above 0 holds a term."""
    weighed = weights_by_stage(weighting, terms, stages)
    for group in GROUPS:
        if not getattr(terms, group) and any(weights.get(group, 0.0) > 0 for weights in weighed):
            return (
                f"`terms.{group}` should hold a term where `{group}` has a weight above 0. Found []. Give the weight 0."
            )
    return None


def learned_terms_are_bounded(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """A weight that learns on a loss which may be negative has no best value: it grows without end."""
    if not isinstance(weighting, UncertaintyWeights) or "cls" not in learned_groups(weighting, terms):
        return None
    for place, term in enumerate(terms.cls):
        if isinstance(term, TopKTerm) and not term.bounded:
            return (
                f"`terms.cls.{place}.bounded` should be true where the weight of `cls` is learned: a weight that "
                "learns on a loss which may be negative grows without end. Found False. Set it, which takes the "
                "softplus, or give `cls` a weight in `weighting.fixed`."
            )
    return None


def initial_weights_are_learned(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """Initial weights are of groups whose weight is learned from there."""
    if not isinstance(weighting, UncertaintyWeights):
        return None
    learned = learned_groups(weighting, terms)
    others = [group for group in weighting.initial if group not in learned]
    if not others:
        return None
    return (
        f"`weighting.initial` should name groups whose weight is learned: {', '.join(learned)}. Found "
        f"{', '.join(others)}. A group with a weight in `fixed`, one without terms and `reg` learn none."
    )


def hand_over_ends(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """Each hand-over between stages ends before the next begins."""
    if not isinstance(weighting, StagedWeights | AggregatedWeights):
        return None
    running = [stage for stage in stages if stage.steps > 0]
    for stage in running[:-1]:
        if stage.steps < weighting.handover:
            return (
                "`weighting.handover` should be at most the steps of every stage but the last, so that each hand-over "
                f"ends before the next. Found {weighting.handover}, and {stage.steps} steps in {stage.name}."
            )
    return None


def hybrid_stages_have_given_weights(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """A hybrid stage multiplies losses by a share, and a learned weight divides by what it learns on: the share too.

    At its best value the weight of ``a L`` is ``1 / (2 (a L + delta))``: times ``a``, that is nearly the same for every
    share until ``a L`` is as small as ``delta``, and at ``a = 0`` the weight itself grows up to ``1 / (2 delta)``.
    """
    if not isinstance(weighting, UncertaintyWeights):
        return None
    for place, stage in enumerate(stages):
        if stage.steps > 0 and stage.condition == "hybrid":
            return (
                f"`stages.{place}.condition` should be 'label' or 'image' where weights are learned: they would undo "
                "the share by which a hybrid stage multiplies the losses that seek the class. Found 'hybrid'. Take "
                "another condition, or the weighting `staged`."
            )
    return None


def projector_has_a_gradient(terms: Terms, weighting: AnyWeights, stages: Sequence[Stage]) -> str | None:
    """The regulariser holds label embeddings and adapters, so under it alone nothing pulls at the projector."""
    for stage, weights in zip(stages, weights_by_stage(weighting, terms, stages), strict=True):
        weighed = [group for group, weight in weights.items() if weight > 0]
        if stage.steps > 0 and set(stage.trains) == {"projector"} and weighed == ["reg"]:
            return (
                "`stages` should weigh another group than `reg` where they train `projector` alone: the regulariser "
                f"does not depend on it, so nothing would train. Found `reg` alone in {stage.name}."
            )
    return None


RULES: tuple[Rule, ...] = (
    stages_weigh_something,
    weighed_groups_have_terms,
    learned_terms_are_bounded,
    initial_weights_are_learned,
    hand_over_ends,
    hybrid_stages_have_given_weights,
    projector_has_a_gradient,
)
"""In the order in which they are asked; all that are broken are told."""
