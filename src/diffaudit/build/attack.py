"""Settings to the attack itself: label embedding, objective, weighting, stages."""

from typing import assert_never

import torch
from torch import Tensor

from diffaudit import settings as s
from diffaudit.build.gradients import require_gradient
from diffaudit.build.terms import build_bank, build_entries
from diffaudit.errors import InvalidSetting
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import LabelEmbedding, ManifoldEmbedding, MlpEmbedding, TableEmbedding, WordEmbedding
from diffaudit.inversion.generator import add_lora, check_embedding_fits
from diffaudit.inversion.plans import ImagePlan, SamplePlan, StagePlan
from diffaudit.inversion.state import TrainingState
from diffaudit.models.label_words import LabelWords
from diffaudit.objective import Objective
from diffaudit.weighting import Fixed, JacobianDescent, Staged, StageWeights, Uncertainty, Weighting


def build_embedding(
    setting: s.LabelEmbedding, anchors: Tensor, public: Tensor, *, seed: int, words: LabelWords | None = None
) -> LabelEmbedding:
    """A label embedding that starts at ``anchors (n, D)``; ``public (N, D)`` spans the manifold.

    Textual inversion starts at the prior's ``words`` instead.
    """
    match setting.kind:
        case "table":
            return TableEmbedding(anchors)
        case "mlp":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return MlpEmbedding(anchors, hidden=setting.hidden, layers=setting.layers)
        case "manifold":
            return ManifoldEmbedding(anchors, public, explained_variance=setting.explained_variance)
        case "textual_inversion":
            if words is None:
                rule = "be another than textual_inversion where the prior has no place for words"
                raise InvalidSetting("embedding.kind", rule, setting.kind)
            return WordEmbedding(words.start, len(anchors))
        case _:
            assert_never(setting.kind)


def build_objective(settings: s.InversionSettings, attacker: Attacker, embedding: LabelEmbedding) -> Objective:
    """The terms asked for under the weighting asked for."""
    entries = build_entries(
        settings.terms, used_groups(settings), attacker, embedding, anchor_images=settings.embedding.anchor_images
    )
    return Objective(entries, build_weighting(settings))


def build_state(settings: s.InversionSettings, attacker: Attacker, anchors: Tensor) -> TrainingState:
    """All that a run trains, at its start; ``anchors (n, D)`` are where the label embeddings begin.

    Raises:
        InvalidSetting: the target, or the encoder of the identity terms, has no gradient to follow; fewer public
            pictures than candidates that should begin at different ones.
    """
    _require_what_is_needed(settings, attacker)
    public, words = attacker.public.embeddings, attacker.prior.words
    embedding = build_embedding(settings.embedding, anchors, public, seed=settings.seed, words=words)
    check_embedding_fits(attacker.prior, embedding)
    if any("lora" in stage.trains and stage.steps for stage in settings.stages):
        add_lora(attacker.prior, rank=settings.lora.rank, alpha=settings.lora.alpha, seed=settings.seed)
    objective = build_objective(settings, attacker, embedding)
    bank = build_bank(settings.terms, used_groups(settings), attacker)
    rate = settings.weighting.rate if isinstance(settings.weighting, s.UncertaintyWeights) else None
    return TrainingState(embedding, attacker, objective, bank, sigma_rate=rate)


def _require_what_is_needed(settings: s.InversionSettings, attacker: Attacker) -> None:
    used, picture = used_groups(settings), attacker.public.at(torch.zeros(1, dtype=torch.long))
    if "cls" in used:
        require_gradient("attack.target", attacker.classifier.logits, picture)
    if "id" in used:
        require_gradient("attack.encoder", attacker.encoder, picture)
    sampling = settings.sampling
    if sampling.sources == "spread" and sampling.candidates > len(attacker.public):
        rule = f"be at most the number of public pictures, {len(attacker.public)}, where sources are spread"
        raise InvalidSetting("sampling.candidates", rule, sampling.candidates)


def used_groups(settings: s.InversionSettings) -> tuple[s.Group, ...]:
    """The groups that weigh something in some stage; the others are not even computed.

    Where weights are learned these are all that have terms, but for those fixed at 0.

    Raises:
        InvalidSetting: nothing weighs anything in stages that train.
    """
    given = s.weights_by_stage(settings.weighting, settings.terms, settings.stages)
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
        case s.UncertaintyWeights(initial=initial, fixed=fixed, delta=delta):
            kept: dict[str, float] = {group: weight for group, weight in fixed.items() if group in used}
            learned = [group for group in used if group not in kept]
            return Uncertainty(learned, initial=dict(initial.items()), fixed=kept, delta=delta)
        case s.StagedWeights(handover=handover, shape=shape) | s.AggregatedWeights(handover=handover, shape=shape):
            starts = [sum(stage.steps for stage in settings.stages[:i]) for i in range(len(settings.stages))]
            stages = [
                StageWeights(start, {group: stage.weights.get(group, 0.0) for group in used})
                for start, stage in zip(starts, settings.stages, strict=True)
                if stage.steps > 0
            ]
            return Staged(stages or [StageWeights(0, dict.fromkeys(used, 0.0))], handover, shape)
        case _:
            assert_never(settings.weighting)


def build_gradient_weighting(settings: s.InversionSettings) -> JacobianDescent | None:
    """What weighs gradients, where the settings ask for it; the stages' weights then are its preferences.

    Raises:
        MissingExtra: TorchJD is not installed.
    """
    match settings.weighting:
        case s.AggregatedWeights(aggregator=aggregator):
            return JacobianDescent(aggregator)
        case _:
            return None


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
                condition=stage.condition,
            )
        )
        first += stage.steps
    return plans


def build_image_plan(setting: s.TrainingImage) -> ImagePlan:
    """How training images are made."""
    return ImagePlan(**setting.model_dump())


def build_sample_plan(setting: s.Sampling, *, attack: bool) -> SamplePlan:
    """How reconstructions are drawn; the rows that an attack is compared with take no gradient of the target."""
    values = setting.model_dump(exclude={"finishing"})
    return SamplePlan(**values if attack else values | {"classifier_guidance": 0.0})
