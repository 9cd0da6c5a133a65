"""Defences: what they do to a picture by hand, and that only the generator passed decides what they draw."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.judging.defences import (
    Defence,
    depth_defence,
    jpeg,
    jpeg_defence,
    purification_defence,
    purified,
    reduced_depth,
    resize_defence,
    resized_and_padded,
)
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 2, side: int = 16) -> Tensor:
    return torch.randint(0, 256, (count, 3, side, side), generator=seeded()) / 255


class GaussianPrior(nn.Module):
    """Pictures are their own latents, drawn from N(0.5, s^2): the best prediction of the noise is in closed form."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation
        self.kept = torch.linspace(0.999, 0.01, 100)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents

    def timesteps(self, steps: int, strength: float) -> list[int]:
        return [round(strength * 100 * (steps - index) / steps) - 1 for index in range(steps)]

    def levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.where(timesteps < 0, 1.0, self.kept[timesteps.clamp(min=0)])[:, None, None, None]
        return kept.sqrt(), (1 - kept).sqrt()

    def add_noise(self, latents: Tensor, drawn: Tensor, timesteps: Tensor) -> Tensor:
        signal, spread = self.levels(timesteps)
        return signal * latents + spread * drawn

    def guided_epsilon(
        self, latents: Tensor, timesteps: Tensor, condition: Condition, null: Condition | None, scale: float
    ) -> Tensor:
        assert len(condition) == len(latents)
        assert null is None
        assert scale == 1
        signal, spread = self.levels(timesteps)
        return spread * (latents - signal * 0.5) / (signal**2 * self.deviation**2 + spread**2)

    def ddim_step(self, latents: Tensor, epsilon: Tensor, timesteps: Tensor, onward: Tensor) -> Tensor:
        signal, spread = self.levels(timesteps)
        later, rest = self.levels(onward)
        return later * (latents - spread * epsilon) / signal + rest * epsilon


CONDITION = Condition(torch.zeros(1, 1, 4))


def cleaned(images: Tensor, *, deviation: float, condition: Condition = CONDITION, seed: int = 0) -> Tensor:
    prior = GaussianPrior(deviation)
    return purified(prior, images, condition, strength=0.1, steps=5, generator=seeded(seed))  # type: ignore[arg-type]


def test_jpeg_is_pillows_own_round_trip() -> None:
    images = noise(1)
    pixels = (255 * images[0]).round().byte().permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=75)
    expected = np.asarray(Image.open(file), dtype=np.float32) / 255
    assert np.array_equal(jpeg(images)[0].permute(1, 2, 0).numpy(), expected)


def test_a_coarser_file_is_farther() -> None:
    images = noise()
    assert (jpeg(images, quality=10) - images).abs().mean() > (jpeg(images, quality=90) - images).abs().mean()


def test_four_bits_are_sixteen_levels() -> None:
    ramp = (torch.arange(256) / 255).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    found = reduced_depth(ramp)
    assert found.unique().tolist() == pytest.approx([level / 15 for level in range(16)])
    assert (found - ramp).abs().max() <= 0.5 / 15 + 1e-6
    assert torch.equal(reduced_depth(ramp, bits=8), ramp)


def test_a_white_picture_shrinks_onto_black() -> None:
    found = resized_and_padded(torch.ones(20, 3, 20, 20), seeded(), least=0.9)
    sides = found[:, 0].amax(2).sum(1)
    assert torch.equal(found[:, 0].flatten(1).sum(1), sides**2)
    assert set(sides.int().tolist()) == {18, 19, 20}
    corners = {tuple(int(v) for v in image.nonzero()[0]) for image in found[:, 0]}
    assert len(corners) > 3


def test_the_whole_side_is_no_change() -> None:
    assert torch.allclose(resized_and_padded(noise(), seeded(), least=1.0), noise(), atol=1e-6)


def test_oblong_pictures_keep_their_shape() -> None:
    assert resized_and_padded(torch.ones(1, 3, 10, 20), seeded(), least=0.5).shape == (1, 3, 10, 20)


def test_purification_leaves_only_what_the_prior_can_show() -> None:
    """A prior that knows one picture alone gives that one, one that knows everything gives the picture back."""
    images = noise()
    assert torch.allclose(cleaned(images, deviation=0.0), torch.full_like(images, 0.5), atol=1e-5)
    assert (cleaned(images, deviation=10.0) - images).abs().mean() > 0.05  # the noise stays: all is likely


def test_purification_moves_toward_the_prior_and_no_further() -> None:
    images = torch.full((1, 3, 8, 8), 0.9)
    found = cleaned(images, deviation=0.05).mean()
    assert 0.5 < found < 0.9


def test_purification_takes_one_condition_or_one_each() -> None:
    each = Condition(torch.zeros(2, 1, 4))
    assert torch.equal(cleaned(noise(), deviation=0.2), cleaned(noise(), deviation=0.2, condition=each))


def test_purification_of_a_real_prior(tiny_world: Path) -> None:
    prior = DiffusionPrior.load(tiny_world / "prior")
    defence = purification_defence(prior, prior.condition(None, 1), strength=0.2, steps=2)
    assert defence.name == "purification-0.2-2"
    found = defence.apply(noise(2, 64), seeded())
    assert found.shape == (2, 3, 64, 64)
    assert not found.requires_grad
    assert found.min() >= 0
    assert found.max() <= 1


RANDOMISED: list[Callable[[Tensor, torch.Generator], Tensor]] = [
    resize_defence(0.5).apply,
    lambda images, generator: purified(
        GaussianPrior(0.2), images, CONDITION, strength=0.1, steps=2, generator=generator  # type: ignore[arg-type]
    ),
]  # fmt: skip


@pytest.mark.parametrize("apply", RANDOMISED)
def test_the_generator_alone_decides(apply: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    torch.manual_seed(1)
    first = apply(noise(3), seeded())
    torch.manual_seed(2)
    assert torch.equal(first, apply(noise(3), seeded()))
    assert not torch.equal(first, apply(noise(3), seeded(1)))


@pytest.mark.parametrize("apply", RANDOMISED)
def test_a_draw_does_not_depend_on_the_batch(apply: Callable[[Tensor, torch.Generator], Tensor]) -> None:
    generator = seeded()
    parts = torch.cat([apply(part, generator) for part in noise(3).split(2)])
    assert torch.allclose(parts, apply(noise(3), seeded()), atol=1e-6)


def test_names_say_how_strong() -> None:
    """So that one kind may stand in a run at several strengths."""
    known = (jpeg_defence(), depth_defence(5), resize_defence(), resize_defence(0.85))
    assert [defence.name for defence in known] == ["jpeg-75", "depth-5", "resize-pad-0.9", "resize-pad-0.85"]
    assert (jpeg_defence().repeats, resize_defence().repeats) == (1, 10)
    assert torch.equal(jpeg_defence(50).apply(noise(), seeded()), jpeg(noise(), quality=50))
    assert torch.equal(depth_defence().apply(noise(), seeded()), reduced_depth(noise()))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: jpeg(noise(), quality=0), "`quality` should be between 1 and 95. Found 0"),
        (lambda: reduced_depth(noise(), bits=9), "`bits` should be between 1 and 8. Found 9"),
        (lambda: resized_and_padded(noise(), seeded(), least=0.0), "`least` should be in .0, 1.. Found 0.0"),
        (lambda: Defence("none", lambda images, _: images, 0), "`none.repeats` should be a positive integer. Found 0"),
    ],
)
def test_what_breaks_a_rule_is_refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        call()
