"""From a latent in the middle of the way to the picture, with what the prior attends to on the way recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from diffaudit.attention import AttentionBranch, AttentionLayer
from diffaudit.models.attention import in_window, recorded_attention
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.latents import way_back
from diffaudit.perturbation.plans import PathPlan
from diffaudit.terms import draw_heads, head_mean

RawMaps = Mapping[AttentionLayer, Tensor]
"""Probabilities of one step by layer, every head by itself: ``(B, heads, H*W, keys)``."""

TokenMasks = tuple[Tensor, Tensor | None]
"""``(B, T)`` boolean: the tokens of the label that a prompt is about, and of the other one that it names, if any."""


@dataclass(frozen=True, eq=False)
class Rendered:
    """``image (B, 3, H, W)`` about [0, 1], not clamped, and the maps of every recorded step."""

    image: Tensor
    steps: tuple[RawMaps, ...]

    def with_rows(self, rows: Tensor, rendered: "Rendered") -> "Rendered":
        """These pictures as they are, cut from what made them, but for ``rows (B',)``, which are those ``rendered``.

        Steps that one of both did not record are left out.
        """
        if len(rows) == len(self.image):
            return rendered
        before = self.detached()
        steps = [
            {layer: found.index_copy(0, rows, later[layer]) for layer, found in step.items()}
            for step, later in zip(before.steps, rendered.steps, strict=False)
        ]
        return Rendered(before.image.index_copy(0, rows, rendered.image), tuple(steps))

    def detached(self) -> "Rendered":
        """The same, cut from what made it, which need not be kept for it."""
        steps = tuple({layer: found.detach() for layer, found in step.items()} for step in self.steps)
        return Rendered(self.image.detach(), steps)


def kept_heads(steps: Sequence[RawMaps], keep: float, generator: torch.Generator) -> dict[AttentionLayer, Tensor]:
    """Which heads of every cross-attention layer an iteration reads: one draw, shared by its images and branches."""
    layers = [layer for layer in (steps[0] if steps else ()) if layer.kind == "cross"]
    return {layer: draw_heads(steps[0][layer].shape[1], generator, keep=keep) for layer in layers if keep < 1}


def render(
    prior: DiffusionPrior,
    latents: Tensor,
    condition: Condition,
    nulls: Sequence[Condition | None],
    path: PathPlan,
    layers: Sequence[AttentionLayer] = (),
    *,
    window: tuple[float, float] = (0.0, 1.0),
) -> Rendered:
    """Denoises ``latents (B, c, h, w)`` from step ``path.start`` on and decodes them.

    ``nulls`` holds the null condition of each step, None where there is no guidance. Attention of ``layers`` is
    recorded at steps whose progress lies in ``window``; elsewhere, and in every other layer, it stays fused.
    """
    current = latents
    steps: list[RawMaps] = []
    schedule = pairwise(way_back(prior, path.steps, path.start))
    for (timestep, following), null in zip(schedule, nulls, strict=True):
        now, onward = (torch.full((len(latents),), value, device=latents.device) for value in (timestep, following))
        wanted = layers if in_window(timestep, prior.num_train_timesteps, window) else ()
        with recorded_attention(prior.unet, wanted) as maps:
            epsilon = prior.guided_epsilon(current, now, condition, null, path.guidance_scale)
        if wanted:
            # Guidance puts the rows of the null condition first; they are left out.
            steps.append({layer: found[-len(latents) :] for layer, found in maps.items()})
        current = prior.ddim_step(current, epsilon, now, onward)
    return Rendered(prior.decode(current), tuple(steps))


def branch_of(
    steps: Sequence[RawMaps],
    tokens: TokenMasks | None,
    kept: Mapping[AttentionLayer, Tensor] | None = None,
    *,
    weights: Sequence[float] | None = None,
) -> AttentionBranch:
    """Recorded maps as terms read them, cross-attention averaged over the heads ``kept`` (None: all) by ``weights``.

    Without ``tokens`` no label has any: self-attention can be read all the same.
    """
    label, rival = tokens or (torch.zeros(0, 0, dtype=torch.bool), None)
    read = [
        {
            layer: head_mean(found, weights, (kept or {}).get(layer)) if layer.kind == "cross" else found
            for layer, found in step.items()
        }
        for step in steps
    ]
    return AttentionBranch(steps=tuple(read), label=label, rival=rival)
