"""Pictures of attention: where the prior looks for a label's words, laid over the image."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from PIL import Image
from torch import Tensor, nn

from diffaudit.eight_bit import to_bytes
from diffaudit.perturbation.plans import PathPlan, RecordingPlan
from diffaudit.perturbation.rendering import RawMaps, branch_of, render
from diffaudit.perturbation.scene import Perturber, Scene
from diffaudit.terms import label_map, resized_map

OPACITY = 0.55


@torch.no_grad()
def attention_of_labels(
    perturber: Perturber, scene: Scene, latents: Tensor, path: PathPlan, recording: RecordingPlan
) -> tuple[Tensor, Tensor] | None:
    """``(B, h, w)`` attention to each picture's label before and after, both over the larger of their maxima.

    The mean over recorded steps and layers of cross-attention, heads by their weights, on the finest grid. None where
    no words are read.
    """
    if scene.own_tokens is None:
        return None
    after = render(
        perturber.prior, latents, scene.condition, scene.nulls, path, recording.layers, window=recording.window
    ).steps
    one, other = (_mean_map(scene, steps, recording.head_weights) for steps in (scene.clean, after))
    most = torch.maximum(one.amax((1, 2)), other.amax((1, 2))).clamp(min=1e-12)[:, None, None]
    return one / most, other / most


def _mean_map(scene: Scene, steps: Sequence[RawMaps], head_weights: Sequence[float] | None) -> Tensor:
    branch = branch_of(steps, scene.own_tokens, weights=head_weights)
    recorded = [found for step in branch.steps for layer, found in step.items() if layer.kind == "cross"]
    side = round(max(found.shape[1] for found in recorded) ** 0.5)
    mean = torch.stack([resized_map(label_map(found, branch.label), side) for found in recorded]).mean(0)
    return mean.view(-1, side, side)


def save_attention(path: Path, picture: Tensor, attention: Tensor) -> None:
    """Writes ``picture (3, H, W)`` in [0, 1] under ``attention (h, w)`` in [0, 1], dark to bright, as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    grown = nn.functional.interpolate(attention[None, None], picture.shape[1:], mode="bilinear", align_corners=False)
    heat = torch.from_numpy(matplotlib.colormaps["inferno"](grown[0, 0].numpy())[..., :3]).permute(2, 0, 1)
    mixed = (1 - OPACITY) * picture + OPACITY * heat
    partial = path.with_suffix(".partial")
    Image.fromarray(to_bytes(mixed).permute(1, 2, 0).contiguous().numpy()).save(partial, format="PNG")
    partial.replace(path)
