"""Settings to the terms of a perturbation, and to the attention that is recorded for them."""

from functools import partial
from typing import Any, assert_never

from diffaudit import settings as s
from diffaudit.attention import AttentionLayer
from diffaudit.errors import InvalidSetting
from diffaudit.models.attention import attention_layers, in_window
from diffaudit.objective import Entry, Objective
from diffaudit.perturbation.latents import way_back
from diffaudit.perturbation.plans import MaskPlan, RecordingPlan
from diffaudit.perturbation.scene import Perturber
from diffaudit.terms import (
    AttentionContrast,
    AttentionDrift,
    AttentionEntropy,
    AttentionReplacement,
    AttentionVariance,
    CoarseColour,
    Frequency,
    HierarchicalPerceptual,
    PixelDistance,
    SelfAttention,
    Term,
)
from diffaudit.weighting import Ramp, Ramped

CROSS = (s.VarianceTerm, s.EntropyTerm, s.ContrastTerm, s.ReplaceTerm, s.DriftTerm)
"""The terms that read cross-attention."""
PICTORIAL = (s.FrequencyTerm, s.DistanceTerm, s.PixelTerm, s.ColourTerm)
"""The terms that read the picture alone."""


def build_recording(settings: s.PerturbationSettings, perturber: Perturber, mask: MaskPlan) -> RecordingPlan:
    """What is recorded on the way back: no more than the terms and the ``mask`` read.

    Raises:
        InvalidSetting: layers that the prior does not have, a window without a step, weights for other heads.
    """
    unet, asked = perturber.prior.unet, settings.attention
    wanted: dict[AttentionLayer, float] = {}
    for term in settings.terms:
        if isinstance(term, (*CROSS, s.SelfAttentionTerm)):
            wanted |= layer_weights(unet, "cross" if isinstance(term, CROSS) else "self", term.layers)
    wanted |= mask.layers
    if wanted:
        _require_steps(settings, perturber)
    if asked.head_weights is not None:
        _require_heads(unet, wanted, len(asked.head_weights))
    return RecordingPlan(
        layers=tuple(layer for layer in attention_layers(unet) if layer in wanted),
        window=(asked.window[0], asked.window[1]),
        keep_heads=asked.keep_heads,
        head_weights=None if asked.head_weights is None else tuple(asked.head_weights),
        with_rival=any(isinstance(term, s.ReplaceTerm) for term in settings.terms),
    )


def build_mask(settings: s.PerturbationSettings, perturber: Perturber) -> MaskPlan:
    """Where the perturbation acts; of attention, by the layers that the mask itself names.

    Raises:
        InvalidSetting: layers that the prior does not have.
    """
    asked = settings.mask
    layers = layer_weights(perturber.prior.unet, "cross", asked.layers) if asked.kind == "attention" else {}
    return MaskPlan(asked.kind, asked.threshold, layers)


def build_terms(settings: s.PerturbationSettings, perturber: Perturber, pictures: int) -> Objective | None:
    """The terms beside the surrogates' loss, for one batch of ``pictures``; None where there are none."""
    if not settings.terms:
        return None
    entries = [
        Entry(name=term.kind, group=term.kind, term=_term(term, perturber), scale=term.scale, rows=pictures)
        for term in settings.terms
    ]
    ramps: dict[str, Ramp] = {term.kind: build_ramp(term.weight) for term in settings.terms}
    return Objective(entries, Ramped(ramps, steps=settings.budget.iterations))


def build_ramp(weight: float | s.Ramp) -> Ramp:
    """A weight over the iterations; a number stays what it is."""
    return Ramp(weight.start, weight.end, weight.shape) if isinstance(weight, s.Ramp) else Ramp(weight, weight)


def layer_weights(unet: Any, kind: str, asked: s.Layers) -> dict[AttentionLayer, float]:
    """The layers of one kind that are asked for, with what each counts: its place times its level.

    Raises:
        InvalidSetting: the UNet has none of them.
    """
    places = {"down": asked.down, "mid": asked.mid, "up": asked.up}
    levels = dict.fromkeys(asked.levels, 1.0) if isinstance(asked.levels, list) else asked.levels
    known = [layer for layer in attention_layers(unet) if layer.kind == kind]
    counts = {layer: places[layer.place] * (1.0 if levels is None else levels.get(layer.level, 0.0)) for layer in known}
    found = {layer: count for layer, count in counts.items() if count > 0}
    if not found:
        has = sorted({(layer.place, layer.level) for layer in known})
        raise InvalidSetting("layers", f"be places and levels of the prior's {kind}-attention, {has}", asked)
    return found


def _term(setting: s.AnyPerturbationTerm, perturber: Perturber) -> Term:
    unet = perturber.prior.unet
    cross, places = partial(layer_weights, unet, "cross"), partial(layer_weights, unet, "self")
    match setting:
        case s.VarianceTerm():
            return AttentionVariance(side=setting.side, joint=setting.joint, layers=cross(setting.layers))
        case s.EntropyTerm():
            return AttentionEntropy(side=setting.side, layers=cross(setting.layers))
        case s.ContrastTerm():
            return AttentionContrast(margin=setting.margin, layers=cross(setting.layers))
        case s.ReplaceTerm():
            return AttentionReplacement(norm=setting.norm, layers=cross(setting.layers))
        case s.DriftTerm():
            return AttentionDrift(layers=cross(setting.layers))
        case s.SelfAttentionTerm():
            return SelfAttention(divergence=setting.divergence, layers=places(setting.layers))
        case s.FrequencyTerm():
            return Frequency(detail=setting.detail)
        case s.DistanceTerm():
            return HierarchicalPerceptual(perturber.perceptual)
        case s.PixelTerm():
            return PixelDistance()
        case s.ColourTerm():
            return CoarseColour(grid=setting.grid)
        case _:
            assert_never(setting)


def _require_steps(settings: s.PerturbationSettings, perturber: Perturber) -> None:
    prior, (first, last) = perturber.prior, settings.attention.window
    total = prior.num_train_timesteps
    taken = way_back(prior, settings.latents.steps, settings.latents.start)[:-1]
    if not any(in_window(timestep, total, (first, last)) for timestep in taken):
        progress = [round(1 - timestep / (total - 1), 3) for timestep in taken]
        raise InvalidSetting("attention.window", f"hold one of the steps on the way back, {progress}", [first, last])


def _require_heads(unet: Any, layers: dict[AttentionLayer, float], count: int) -> None:
    for layer in layers:
        heads = unet.get_submodule(layer.name).heads
        if layer.kind == "cross" and heads != count:
            raise InvalidSetting("attention.head_weights", f"be one per head, {heads} at {layer.name}", count)
