"""Trains the generator toward the classes sought: one stage after another, all classes together in mixed batches."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffaudit.errors import NotFinite
from diffaudit.inversion.batches import rows_of_step, step_generator
from diffaudit.inversion.candidates import draw_candidate
from diffaudit.inversion.health import health_point, require_finite
from diffaudit.inversion.plans import ImagePlan, StagePlan
from diffaudit.inversion.state import TrainingState
from diffaudit.objective import Objective, Scored
from diffaudit.records import HealthPoint
from diffaudit.weighting.gradient import GradientWeighting


@dataclass(frozen=True, eq=False)
class StepReport:
    """What a step did.

    Unweighted batch means, weights of the groups, the mean weighted value, the gradient's norm before clipping, the
    target's accuracy, and a look at its health where one was due.
    """

    stage: str
    step: int
    parts: dict[str, float]
    weights: dict[str, float]
    value: float
    gradient_norm: float
    target_accuracy: float
    health: HealthPoint | None = None


def train_stage(
    state: TrainingState,
    plan: StagePlan,
    image: ImagePlan,
    optimiser: torch.optim.Optimizer,
    anchors: Callable[[Tensor], Tensor],
    *,
    seed: int,
    begin: int = 0,
    gradient_weighting: GradientWeighting | None = None,
    look_every: int | None = None,
    on_step: Callable[[StepReport, torch.optim.Optimizer], None] | None = None,
) -> None:
    """Runs steps ``begin .. plan.steps - 1``.

    Step ``i`` draws from ``(seed, first_step + i)``, and its classes from the step in which their order began, so a run
    that was stopped goes on with the same numbers.
    ``anchors`` maps class rows ``(B,)`` to the unit vectors ``(B, D)`` that the identity term pulls toward.
    ``look_every`` so many steps of the run its health is looked at, which costs a backward pass a term and changes no
    bit of the result.

    Raises:
        NotFinite: a loss or its gradient is not finite; parameters, scales and what terms remember are those of the
            step before.
    """
    objective = state.objective
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    clipped = [parameter for group in optimiser.param_groups if group["clipped"] for parameter in group["params"]]
    for step in range(begin, plan.steps):
        number = plan.first_step + step
        generator = step_generator(seed, number)
        for group in optimiser.param_groups:
            group["lr"] = group["base_rate"] * plan.rate_factor(step)
        weights = objective.weighting.weights(number)
        each = image.per_class or (2 if state.compares_classmates else 1)
        rows = rows_of_step(len(state.attacker.classes), plan, step, each=each, seed=seed, generator=generator)
        prior = weights.get("prior")
        candidate = draw_candidate(state, plan, image, anchors, rows, generator, step=step, prior_weight=prior)
        shares = plan.attack_shares(step)
        with _uncounted_if_broken(objective):
            scored = objective(candidate, number, shares)
            require_finite("value", scored.value, scored.parts, step=number)
            health = None
            if look_every is not None and number % look_every == 0:
                classes = state.attacker.classes
                health = health_point(plan.name, number, candidate, scored, trained, objective, classes)
            loss = _loss(scored, weights, trained, gradient_weighting, step=number)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            norm = nn.utils.clip_grad_norm_(clipped, plan.clip)
            require_finite("gradient", norm, {}, step=number)
        optimiser.step()
        state.embedding.confine()
        objective.weighting.confine()
        if on_step is not None:
            hits = float((candidate.logits.argmax(1) == candidate.target).double().mean())
            parts = {name: float(value.mean()) for name, value in scored.parts.items()}
            value = float(scored.value.detach().mean())
            counted = {group: weight * shares.get(group, 1.0) for group, weight in weights.items()}
            on_step(StepReport(plan.name, step, parts, counted, value, float(norm), hits, health), optimiser)
        del candidate, scored, loss  # no graph of this step is kept while the next picture is drawn


@contextmanager
def _uncounted_if_broken(objective: Objective) -> Iterator[None]:
    """Puts back what terms and their scales remember where a step breaks off.

    They count the step before anyone sees that it is not finite.
    """
    # Scales assign their buffers and never write into them, so these references keep what they held; terms may write.
    before = objective.scales.state_dict()
    remembered = {name: buffer.clone() for name, buffer in objective.terms.named_buffers()}
    try:
        yield
    except NotFinite:
        objective.scales.load_state_dict(before)
        with torch.no_grad():
            for name, buffer in objective.terms.named_buffers():
                buffer.copy_(remembered[name])
        raise


def _loss(
    scored: Scored,
    weights: dict[str, float],
    parameters: list[nn.Parameter],
    gradients: GradientWeighting | None,
    *,
    step: int,
) -> Tensor:
    """What is descended: the mean of the weighted values, or the groups' means as their gradients weigh them.

    A weight of the objective then is a preference: a loss that is multiplied by a number counts that much more.
    """
    if gradients is None:
        return scored.value.mean()
    names = [name for name in scored.groups if weights[name] != 0]
    losses = torch.stack([weights[name] * scored.groups[name].mean() for name in names])
    try:
        combined: Tensor = (gradients(losses, parameters, names) * losses).sum()
    except NotFinite as error:
        raise NotFinite(error.names, step) from error
    return combined
