"""Settings to a perturbation: what the attack holds, what drives it, what it is asked for beside."""

from collections.abc import Callable, Mapping
from typing import assert_never

import torch
from torch import Tensor, nn

from diffaudit import settings as s
from diffaudit.build.models import build_classifier, build_encoder, build_perceptual, build_prior
from diffaudit.build.perturbation_terms import build_mask, build_ramp, build_recording
from diffaudit.perturbation.adaea import AdaEA, crossed_losses
from diffaudit.perturbation.drive import Drive
from diffaudit.perturbation.ensemble import Agreement, EnsembleRule, Look, Weighted, Worst, image_gradients
from diffaudit.perturbation.improvement import Improvement
from diffaudit.perturbation.plans import BudgetPlan, PathPlan, Plans, StepPlan, ViewPlan
from diffaudit.perturbation.scene import Perturber, Scene
from diffaudit.terms import (
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


def build_perturber(
    settings: s.PerturbationSettings, names: tuple[str, ...], *, given: Mapping[str, nn.Module] | None = None
) -> Perturber:
    """Everything that the attack holds; ``names`` are the words of all classes, by number.

    ``given`` are the Python objects that surrogates of kind `given` stand for, by name.
    """
    objects = given or {}
    return Perturber(
        prior=build_prior(settings.prior),
        surrogates={
            name: build_classifier(model, given=objects.get(name), name=f"surrogates.{name}")
            for name, model in settings.surrogates.items()
        },
        names=names,
        template=settings.prompts.template,
        perceptual=build_perceptual(settings.perceptual),
        encoder=None if settings.prompts.identity is None else build_encoder(settings.prompts.identity),
        distractor=settings.prompts.distractor if settings.names_rivals else "none",
    )


def build_plans(settings: s.PerturbationSettings, perturber: Perturber) -> Plans:
    """The way to the latent and back, what is recorded on it, random views, steps, budget and mask.

    Raises:
        InvalidSetting: attention is asked for that the prior does not have on that way.
    """
    way, null = settings.latents, settings.latents.null_text
    path = PathPlan(
        way.steps,
        way.start,
        way.guidance_scale,
        null_steps=None if null is None else null.inner_steps,
        null_rate=0.0 if null is None else null.rate,
        residual=way.residual,
    )
    views = settings.transformations.model_dump() | {"scale": tuple(settings.transformations.scale)}
    mask = build_mask(settings, perturber)
    return Plans(
        path,
        build_recording(settings, perturber, mask),
        ViewPlan(**views),
        StepPlan(**settings.step.model_dump()),
        BudgetPlan(**settings.budget.model_dump()),
        mask,
    )


def build_drive(settings: s.PerturbationSettings, perturber: Perturber, scene: Scene) -> Drive:
    """The surrogates' loss for the pictures of ``scene``, and a fresh rule for the ensemble."""
    goal = goal_of(settings, scene)
    loss = _loss(settings.loss, scene, goal, len(perturber.names))
    ramp, steps = build_ramp(settings.loss.weight), settings.budget.iterations
    return Drive(
        loss=loss,
        rule=_rule(settings.ensemble, perturber, scene, loss, goal),
        weight=lambda iteration: ramp.at(iteration, steps),
        unit=settings.ensemble.unit,
        in_latent=settings.ensemble.space == "latent",
        of_logits=settings.ensemble.of == "logits",
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
            gradients, _ = image_gradients(models, scene.unperturbed, loss)
            crossed = crossed_losses(models, scene.unperturbed, gradients, _raised(scene, goal))
            return AdaEA(crossed, as_published=setting.as_published)
        case _:
            assert_never(setting.kind)


def _raised(scene: Scene, goal: Tensor | None) -> Look:
    """What AdaEA's attacker raises, at least 0: the cross-entropy of the true class or, of a goal, log(1 + p)."""
    if goal is None:
        return lambda logits: torch.nn.functional.cross_entropy(logits, scene.labels, reduction="none")
    return lambda logits: torch.nn.functional.softplus(-goal_cross_entropy(logits, goal))
