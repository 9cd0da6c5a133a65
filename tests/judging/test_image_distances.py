"""Distances between pictures: closed forms, numbers by hand, and that no batch-mate matters."""

import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.judging.image_distances import (
    colour_difference,
    largest_difference,
    signal_to_noise,
    structural_similarity,
)

ALL = [structural_similarity, signal_to_noise, largest_difference, colour_difference]


def grey(*values: float, side: int = 12) -> Tensor:
    return torch.tensor(values)[:, None, None, None].expand(-1, 3, side, side).clone()


def test_the_similarity_of_flat_pictures_is_that_of_their_means() -> None:
    """Without variance the second factor is 1, and what is left compares the means."""
    c1 = 0.01**2
    expected = (2 * 0.2 * 0.6 + c1) / (0.2**2 + 0.6**2 + c1)
    assert structural_similarity(grey(0.2), grey(0.6)).item() == pytest.approx(expected, abs=1e-6)


def test_a_negative_is_dissimilar() -> None:
    noise = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert structural_similarity(noise, 1 - noise).item() < 0
    assert structural_similarity(noise, noise).item() == pytest.approx(1)


@pytest.mark.parametrize(("step", "decibels"), [(1.0, 0.0), (0.1, 20.0), (0.01, 40.0)])
def test_signal_to_noise_in_closed_form(step: float, decibels: float) -> None:
    assert signal_to_noise(grey(0.0), grey(step)).item() == pytest.approx(decibels, abs=1e-4)


def test_signal_to_noise_of_the_same_picture_is_infinite() -> None:
    assert math.isinf(signal_to_noise(grey(0.5), grey(0.5)).item())


def test_one_value_of_one_channel_is_the_largest_difference() -> None:
    moved = grey(0.5, 0.5)
    moved[1, 2, 3, 4] -= 16 / 255
    assert largest_difference(grey(0.5, 0.5), moved).tolist() == pytest.approx([0, 16 / 255])


def test_colours_by_hand() -> None:
    """CIELAB of sRGB red is (53.24, 80.09, 67.20), of green (87.73, -86.18, 83.18), as textbooks print them."""
    red, green = (torch.zeros(1, 3, 12, 12) for _ in range(2))
    red[:, 0], green[:, 1] = 1, 1
    expected = math.dist((53.24, 80.09, 67.20), (87.73, -86.18, 83.18))
    assert colour_difference(red, green).item() == pytest.approx(expected, abs=0.05)


def test_colours_are_averaged_over_the_pixels() -> None:
    half = grey(0.0)
    half[:, :, :6] = 1
    assert colour_difference(grey(0.0), half).item() == pytest.approx(50, abs=0.01)


@pytest.mark.parametrize("distance", ALL)
def test_each_pair_has_its_own_value(distance: Callable[[Tensor, Tensor], Tensor]) -> None:
    generator = torch.Generator().manual_seed(1)
    first, second = (torch.rand(3, 3, 16, 16, generator=generator) for _ in range(2))
    together = distance(first, second)
    apart = torch.cat([distance(first[i : i + 1], second[i : i + 1]) for i in range(3)])
    assert together.shape == (3,)
    assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("distance", ALL)
@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (grey(0.5), grey(0.5, 0.5), "be two floating batches"),
        (grey(0.5).byte(), grey(0.5).byte(), "Divide 8-bit images by 255"),
        (grey(0.5), grey(1.5), r"lie in \[0, 1\]"),
        (grey(0.5), grey(math.nan), "finite"),
    ],
)
def test_what_are_no_pictures_is_refused(
    distance: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        distance(first, second)


def test_small_pictures_have_no_similarity() -> None:
    with pytest.raises(InvalidSetting, match="at least 11 pixels"):
        structural_similarity(grey(0.5, side=10), grey(0.5, side=10))


def test_torchvision_is_not_needed() -> None:
    code = "import sys; sys.modules['torchvision'] = None; import diffaudit.judging.image_distances"
    subprocess.run([sys.executable, "-c", code], check=True)
