"""Settings to a perturbation: what the attack holds, what drives it, what it is asked for beside."""

from collections.abc import Callable
from typing import assert_never

import torch
from torch import Tensor

from diffaudit import settings as s
from diffaudit.build.models import build_classifier, build_encoder, build_perceptual, build_prior
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.objective import Entry, Objective
from diffaudit.perturbation.adaea import AdaEA, crossed_losses
from diffaudit.perturbation.attack import Drive
from diffaudit.perturbation.ensemble import Agreement, EnsembleRule, Look, Weighted, Worst, image_gradients
from diffaudit.perturbation.improvement import Improvement
from diffaudit.perturbation.plans import BudgetPlan, PathPlan, RecordingPlan, StepPlan, ViewPlan
from diffaudit.perturbation.scene import Perturber, Scene
from diffaudit.terms import (
    AttentionContrast,
    AttentionDrift,
    AttentionEntropy,
    AttentionReplacement,
    AttentionVariance,
    Frequency,
    HierarchicalPerceptual,
    PixelDistance,
    SelfAttention,
    Term,
    distribution_distance,
    dlr,
    fooling_margin,
    goal_cross_entropy,
    goal_dlr,
    goal_margin,
    negated_cross_entropy,
    peaked_goal,
    uniform_goal,
)
from diffaudit.weighting import Ramp, Ramped

CROSS = (s.VarianceTerm, s.EntropyTerm, s.ContrastTerm, s.ReplaceTerm, s.DriftTerm)
"""The terms that read cross-attention."""


def build_perturber(settings: s.PerturbationSettings, names: tuple[str, ...]) -> Perturber:
    """Everything that the attack holds; ``names`` are the words of all classes, by number."""
    return Perturber(
        prior=build_prior(settings.prior),
        surrogates={name: build_classifier(model) for name, model in settings.surrogates.items()},
        names=names,
        template=settings.prompts.template,
        perceptual=build_perceptual(settings.perceptual),
        encoder=None if settings.prompts.identity is None else build_encoder(settings.prompts.identity),
        distractor=settings.prompts.distractor,
    )


def build_paths(settings: s.PerturbationSettings) -> tuple[PathPlan, RecordingPlan]:
    """The way to the latent and back, and what is recorded on it: no more than the terms read."""
    way, null = settings.latents, settings.latents.null_text
    path = PathPlan(
        way.steps,
        way.start,
        way.guidance_scale,
        null_steps=None if null is None else null.inner_steps,
        null_rate=0.0 if null is None else null.rate,
    )
    asked = settings.attention
    recording = RecordingPlan(
        cross=settings.mask.kind == "attention" or any(isinstance(term, CROSS) for term in settings.terms),
        self_attention=any(isinstance(term, s.SelfAttentionTerm) for term in settings.terms),
        places=tuple(asked.places),
        window=(asked.window[0], asked.window[1]),
        keep_heads=asked.keep_heads,
    )
    return path, recording


def build_step_plans(settings: s.PerturbationSettings) -> tuple[ViewPlan, StepPlan, BudgetPlan]:
    """Random views, steps and budget."""
    views = settings.transformations.model_dump() | {"scale": tuple(settings.transformations.scale)}
    return (
        ViewPlan(**views),
        StepPlan(**settings.step.model_dump()),
        BudgetPlan(**settings.budget.model_dump()),
    )


def build_terms(settings: s.PerturbationSettings, perceptual: PerceptualFeatures, pictures: int) -> Objective | None:
    """The terms beside the surrogates' loss, for one batch of ``pictures``; None where there are none."""
    if not settings.terms:
        return None
    entries = [
        Entry(name=term.kind, group=term.kind, term=_term(term, perceptual), scale=term.scale, rows=pictures)
        for term in settings.terms
    ]
    ramps: dict[str, Ramp] = {term.kind: _ramp(term.weight) for term in settings.terms}
    return Objective(entries, Ramped(ramps, steps=settings.budget.iterations))


def build_drive(settings: s.PerturbationSettings, perturber: Perturber, scene: Scene) -> Drive:
    """The surrogates' loss for the pictures of ``scene``, and a fresh rule for the ensemble."""
    goal = goal_of(settings, scene)
    loss = _loss(settings.loss, scene, goal, len(perturber.names))
    ramp, steps = _ramp(settings.loss.weight), settings.budget.iterations
    return Drive(
        loss=loss,
        rule=_rule(settings.ensemble, perturber, scene, loss, goal),
        weight=lambda iteration: ramp.at(iteration, steps),
        unit=settings.ensemble.unit,
        in_latent=settings.ensemble.space == "latent",
    )


def goal_of(settings: s.PerturbationSettings, scene: Scene) -> Tensor | None:
    """``(B,)`` the class that each picture is to be taken for; None: any but its own."""
    return scene.distractors if settings.goal == "distractor" else None


def _loss(setting: s.AnyAttackLoss, scene: Scene, goal: Tensor | None, classes: int) -> Look:
    labels = scene.labels
    match setting:
        case s.CrossEntropyLoss():
            if goal is not None:
                return lambda logits: goal_cross_entropy(logits, goal)
            return lambda logits: negated_cross_entropy(logits, labels)
        case s.MarginLoss(kappa=kappa):
            if goal is not None:
                return lambda logits: goal_margin(logits, goal, kappa=kappa)
            return lambda logits: fooling_margin(logits, labels, kappa=kappa)
        case s.DlrLoss():
            if goal is not None:
                return lambda logits: goal_dlr(logits, labels, goal)
            return lambda logits: dlr(logits, labels)
        case s.DistributionLoss(distance=distance, toward=toward, share=share):
            wanted = uniform_goal(classes)
            if toward == "distractor":
                assert scene.distractors is not None  # the settings refuse this without distractors
                wanted = peaked_goal(scene.distractors[:, None], share, classes=classes)
            return lambda logits: distribution_distance(logits, wanted.to(logits), kind=distance)
        case _:
            assert_never(setting)


def _rule(
    setting: s.Ensemble, perturber: Perturber, scene: Scene, loss: Callable[[Tensor], Tensor], goal: Tensor | None
) -> EnsembleRule:
    match setting.kind:
        case "mean":
            return Weighted()
        case "weighted":
            return Weighted(setting.weights)
        case "worst":
            return Worst()
        case "agreement":
            return Agreement(tau=setting.tau)
        case "improvement":
            return Improvement(tau=setting.tau)
        case "adaea":
            models = [model.logits for model in perturber.surrogates.values()]
            gradients, _ = image_gradients(models, scene.rebuilt, loss)
            crossed = crossed_losses(models, scene.rebuilt, gradients, _raised(scene, goal))
            return AdaEA(crossed, as_published=setting.as_published)
        case _:
            assert_never(setting.kind)


def _raised(scene: Scene, goal: Tensor | None) -> Look:
    """What AdaEA's attacker raises, at least 0: the cross-entropy of the true class, or of all but the goal."""
    if goal is None:
        return lambda logits: torch.nn.functional.cross_entropy(logits, scene.labels, reduction="none")
    return lambda logits: torch.nn.functional.softplus(-goal_cross_entropy(logits, goal))


def _term(setting: s.AnyPerturbationTerm, perceptual: PerceptualFeatures) -> Term:
    match setting:
        case s.VarianceTerm():
            return AttentionVariance(side=setting.side, joint=setting.joint)
        case s.EntropyTerm():
            return AttentionEntropy(side=setting.side)
        case s.ContrastTerm():
            return AttentionContrast(margin=setting.margin)
        case s.ReplaceTerm():
            return AttentionReplacement(norm=setting.norm)
        case s.DriftTerm():
            return AttentionDrift()
        case s.SelfAttentionTerm():
            return SelfAttention(divergence=setting.divergence)
        case s.FrequencyTerm():
            return Frequency()
        case s.DistanceTerm():
            return HierarchicalPerceptual(perceptual)
        case s.PixelTerm():
            return PixelDistance()
        case _:
            assert_never(setting)


def _ramp(weight: float | s.Ramp) -> Ramp:
    return Ramp(weight.start, weight.end, weight.shape) if isinstance(weight, s.Ramp) else Ramp(weight, weight)
