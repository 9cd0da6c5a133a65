from math import isqrt
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffaudit.models.attention import attention_layers
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.plans import PathPlan, RecordingPlan
from diffaudit.perturbation.rendering import RawMaps, render
from diffaudit.perturbation.scene import Perturber, prepared
from diffaudit.study.attention_pictures import attention_of_labels, save_attention

PATH = PathPlan(steps=4, start=2, guidance_scale=2.5)
LABELS = torch.tensor([0, 1])


class Same(nn.Module):
    """The picture itself as the only feature map."""

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]


@pytest.fixture
def perturber(tiny_world: Path) -> Perturber:
    """An untrained prior, which with larger queries and keys does not attend to all alike; nothing is attacked."""
    prior = DiffusionPrior.load(tiny_world / "prior")
    for name, parameter in prior.unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            parameter.data.mul_(4)
    names = ("long red hair", "short black hair")
    perceptual = PerceptualFeatures(Same())
    return Perturber(prior, {}, names, "a portrait of a person with {label}", perceptual)


def pictures() -> Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def by_hand(steps: tuple[RawMaps, ...], heads_weigh: tuple[float, ...]) -> Tensor:
    """What each place gives to the three words at 7, 8 and 9: over heads by weight, then over layers and steps."""
    shares = torch.tensor(heads_weigh)[:, None] / sum(heads_weigh)
    grown = []
    for step in steps:
        for layer, heads in step.items():
            if layer.kind == "cross":
                side = isqrt(heads.shape[2])
                words = (shares * heads[..., 7:10].sum(3)).sum(1).view(2, 1, side, side)
                grown.append(nn.functional.interpolate(words, (8, 8), mode="bilinear", align_corners=False))
    return torch.stack(grown).mean(0)[:, 0]


@pytest.mark.parametrize("head_weights", [None, (4.0, 1.0, 2.0, 3.0)])
@pytest.mark.parametrize(("window", "steps"), [((0.0, 1.0), 2), ((0.7, 1.0), 1)])
def test_attention_to_the_label_before_and_after_over_the_larger_maximum(
    perturber: Perturber, window: tuple[float, float], steps: int, head_weights: tuple[float, ...] | None
) -> None:
    """Of the recorded steps alone; self-attention is recorded too, and is none of it."""
    prior = perturber.prior
    recording = RecordingPlan(attention_layers(prior.unet), window, head_weights=head_weights)
    scene = prepared(perturber, pictures(), LABELS, PATH, recording)
    moved = scene.latents + torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(1))
    found = attention_of_labels(perturber, scene, moved, PATH, recording)

    every = [
        render(prior, latents, scene.condition, scene.nulls, PATH, recording.layers).steps[-steps:]
        for latents in (scene.latents, moved)
    ]
    before, after = (by_hand(some, head_weights or (1.0,) * 4) for some in every)
    most = torch.stack([before, after]).amax((0, 2, 3))[:, None, None]
    assert found is not None
    torch.testing.assert_close(found[0], before / most, rtol=0, atol=5e-5)
    torch.testing.assert_close(found[1], after / most, rtol=0, atol=5e-5)
    assert (found[0] - found[1]).abs().amax((1, 2)).min() > 0.01
    assert torch.stack(found).amax((0, 2, 3)).tolist() == [1.0, 1.0]


def test_where_no_words_are_read_there_is_no_attention_to_show(perturber: Perturber) -> None:
    scene = prepared(perturber, pictures(), LABELS, PATH, RecordingPlan())
    assert attention_of_labels(perturber, scene, scene.latents, PATH, RecordingPlan()) is None


def test_a_picture_under_its_attention_pixel_by_pixel(tmp_path: Path) -> None:
    """0.45 of the picture and 0.55 of inferno's first colour, or of its last where attention is 1: at the right top."""
    picture = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "new" / "00000-before.png"
    save_attention(path, picture, torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    shown = torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)
    assert shown.shape == (3, 4, 6)
    colours = matplotlib.colormaps["inferno"]
    dark, bright = (torch.tensor(colours(end)[:3]) for end in (0.0, 1.0))
    for row, column, heat in ((0, 0, dark), (0, 5, bright), (3, 0, dark), (3, 5, dark)):
        expected = 255 * (0.45 * picture[:, row, column] + 0.55 * heat)
        assert (shown[:, row, column] - expected).abs().max() <= 0.51
    assert [one.name for one in path.parent.iterdir()] == [path.name]
