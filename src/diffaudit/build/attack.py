"""Settings to the attack itself: label embedding, objective, weighting, stages."""

from typing import assert_never

import torch
from torch import Tensor

from diffaudit import settings as s
from diffaudit.errors import InvalidSetting
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import LabelEmbedding, ManifoldEmbedding, MlpEmbedding, TableEmbedding
from diffaudit.inversion.generator import lora_parameters
from diffaudit.inversion.training import ImagePlan, StagePlan
from diffaudit.objective import Entry, Objective
from diffaudit.terms import FeatureCentre, IdentityCosine, Perceptual, PriorNoise, Regulariser, TopK
from diffaudit.weighting import Fixed, Staged, StageWeights, Weighting


def build_embedding(setting: s.LabelEmbedding, anchors: Tensor, public: Tensor, *, seed: int) -> LabelEmbedding:
    """A label embedding that starts at ``anchors (n, D)``; ``public (N, D)`` spans the manifold."""
    match setting.kind:
        case "table":
            return TableEmbedding(anchors)
        case "mlp":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return MlpEmbedding(anchors, hidden=setting.hidden, layers=setting.layers)
        case "manifold":
            return ManifoldEmbedding(anchors, public, explained_variance=setting.explained_variance)
        case _:
            assert_never(setting.kind)


def build_objective(settings: s.InversionSettings, attacker: Attacker, embedding: LabelEmbedding) -> Objective:
    """The baseline's terms under the weighting asked for."""
    terms = settings.terms
    entries = [
        Entry(name="prior", group="prior", term=PriorNoise()),
        Entry(name="cls_topk", group="cls", term=TopK(k=terms.k)),
        Entry(name="id", group="id", term=IdentityCosine()),
        Entry(name="perc", group="perc", term=Perceptual(attacker.perceptual)),
        Entry(
            name="reg",
            group="reg",
            term=Regulariser(embedding.raw, lora_parameters(attacker.prior), lora_weight=terms.lora_weight),
        ),
    ]
    centres = attacker.pseudo_centres(settings.embedding.anchor_images)
    if centres is not None and terms.feature_factor > 0:
        every_class = torch.zeros(attacker.public.log_probabilities.shape[1], centres.shape[1])
        every_class[attacker.classes] = centres
        feature = Entry(name="cls_feature", group="cls", term=FeatureCentre(every_class), factor=terms.feature_factor)
        entries.insert(2, feature)
    used = used_groups(settings)
    return Objective([entry for entry in entries if entry.group in used], build_weighting(settings))


def used_groups(settings: s.InversionSettings) -> tuple[s.Group, ...]:
    """The groups that weigh something in some stage; the others are not even computed.

    Raises:
        InvalidSetting: nothing weighs anything in stages that train.
    """
    match settings.weighting:
        case s.FixedWeights(weights=weights):
            given = [weights]
        case s.StagedWeights():
            given = [stage.weights for stage in settings.stages]
        case _:
            assert_never(settings.weighting)
    used = tuple(group for group in s.GROUPS if any(weights.get(group, 0.0) > 0 for weights in given))
    if not used:
        raise InvalidSetting("weights", "be above 0 for at least one group of terms", given)
    return used


def build_weighting(settings: s.InversionSettings) -> Weighting:
    """The weighting of the used groups; one that a stage does not name weighs nothing there."""
    used = used_groups(settings)
    match settings.weighting:
        case s.FixedWeights(weights=weights):
            return Fixed({group: weights.get(group, 0.0) for group in used})
        case s.StagedWeights(handover=handover, shape=shape):
            starts = [sum(stage.steps for stage in settings.stages[:i]) for i in range(len(settings.stages))]
            stages = [
                StageWeights(start, {group: stage.weights.get(group, 0.0) for group in used})
                for start, stage in zip(starts, settings.stages, strict=True)
                if stage.steps > 0
            ]
            return Staged(stages or [StageWeights(0, dict.fromkeys(used, 0.0))], handover, shape)
        case _:
            assert_never(settings.weighting)


def build_stages(settings: s.InversionSettings) -> list[StagePlan]:
    """The stages in order, with the number of the run's step at which each begins."""
    plans, first = [], 0
    for stage in settings.stages:
        slowed = stage.embedding_factor if "lora" in stage.trains else 1.0
        plans.append(
            StagePlan(
                name=stage.name,
                trains=tuple(stage.trains),
                steps=stage.steps,
                rates={name: stage.rate * (slowed if name == "embedding" else 1.0) for name in stage.trains},
                batch=stage.batch,
                first_step=first,
                warmup=settings.optimiser.warmup,
                clip=settings.optimiser.clip,
                weight_decay=settings.optimiser.weight_decay,
            )
        )
        first += stage.steps
    return plans


def build_image_plan(setting: s.TrainingImage) -> ImagePlan:
    """How training images are made."""
    return ImagePlan(setting.mode, setting.steps, setting.gradient_steps, setting.strength, setting.guidance_scale)
