from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.attributes import (
    ATTRIBUTE_NAMES,
    ATTRIBUTES,
    AttributeEstimator,
    harmonic_light,
    light_estimator,
    low_pass_light,
)


class Constant(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return torch.arange(10.0).expand(len(images), 10) + 0 * images.mean((1, 2, 3))[:, None]


def test_every_column_belongs_to_one_attribute() -> None:
    columns = [column for place in ATTRIBUTES.values() for column in range(10)[place]]
    assert columns == list(range(10))
    assert len(ATTRIBUTE_NAMES) == 10


def test_attributes_are_standardised_by_the_public_spread() -> None:
    spread = torch.full((10,), 2.0)
    estimator = AttributeEstimator(Constant(), size=8, spread=spread)
    spread.fill_(100)  # the estimator holds its own copy
    found = estimator(torch.rand(2, 3, 16, 16))
    torch.testing.assert_close(found["pose"], torch.tensor([[0.0, 0.5, 1.0]]).expand(2, 3))
    torch.testing.assert_close(found["expression"], torch.tensor([[1.5, 2.0, 2.5, 3.0]]).expand(2, 4))
    torch.testing.assert_close(found["illumination"], torch.tensor([[3.5, 4.0, 4.5]]).expand(2, 3))


def test_low_pass_light_by_hand() -> None:
    images = torch.zeros(1, 3, 4, 4)
    images[0, 0, :2, :2] = 1  # red, top left
    images[0, 1, 2:, 2:] = 1  # green, bottom right
    torch.testing.assert_close(low_pass_light(images, grid=2), torch.tensor([[0.299, 0.0, 0.0, 0.587]]))


def test_low_pass_light_of_a_uniform_image_is_its_luminance() -> None:
    assert torch.allclose(low_pass_light(torch.full((2, 3, 9, 7), 0.25)), torch.full((2, 16), 0.25))


def test_light_is_standardised_by_its_spread_over_public_pictures() -> None:
    # Grey pictures at 0 and 1: every cell has mean 0.5 and standard deviation 0.5.
    public = torch.tensor([0, 255, 0, 255], dtype=torch.uint8).view(4, 1, 1, 1).expand(4, 3, 8, 8)
    estimator = light_estimator(low_pass_light, public, batch=3)
    found = estimator(torch.full((1, 3, 8, 8), 0.25))
    assert list(found) == ["illumination"]
    torch.testing.assert_close(found["illumination"], torch.full((1, 16), 0.5))


def test_public_pictures_in_one_light_are_refused() -> None:
    public = torch.full((5, 3, 8, 8), 7, dtype=torch.uint8)
    with pytest.raises(
        InvalidSetting, match=r"`public` should hold pictures whose light differs. Found 'a spread of 0"
    ):
        light_estimator(low_pass_light, public)


def lit_ball(size: tuple[int, int], light: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
    """A grey picture ``(1, 3, H, W)`` of a ball that fills it, black around it; ``light`` of the normals."""
    height, width = size
    rows, columns = ((torch.arange(n, dtype=torch.float64) + 0.5) / n * 2 - 1 for n in size)
    y, x = (-rows)[:, None].expand(size), columns.expand(size)
    z = (1 - x**2 - y**2).clamp(min=0).sqrt()
    picture = torch.where(x**2 + y**2 < 1, light(x, y, z), 0.0)
    return picture.expand(1, 3, height, width)


@pytest.mark.parametrize("size", [(16, 16), (32, 20)])
def test_harmonics_of_a_lit_ball_are_found_again(size: tuple[int, int]) -> None:
    picture = lit_ball(size, lambda x, y, z: 0.4 + 0.1 * x - 0.05 * y + 0.2 * z + 0.03 * x * y - 0.02 * (3 * z**2 - 1))
    expected = torch.tensor([[0.4, 0.1, -0.05, 0.2, 0.03, 0, 0, 0, -0.02]], dtype=torch.float64)
    torch.testing.assert_close(harmonic_light(picture), expected, rtol=0, atol=1e-10)


def test_light_from_the_other_side_turns_the_sign_of_x() -> None:
    right = lit_ball((24, 24), lambda x, y, z: (0.8 * x + 0.6 * z).clamp(min=0))
    found, mirrored = harmonic_light(right)[0], harmonic_light(right.flip(3))[0]
    assert found[1] > 0.2
    signs = torch.tensor([1, -1, 1, 1, -1, -1, 1, 1, 1], dtype=torch.float64)  # x, xy and xz are odd in x
    torch.testing.assert_close(mirrored, found * signs, rtol=0, atol=1e-10)


def test_what_lies_around_the_ball_does_not_count() -> None:
    picture = torch.rand(1, 3, 16, 16)
    changed = picture.clone()
    changed[..., 0, 0] = 9
    changed[..., -1, -1] = -9
    torch.testing.assert_close(harmonic_light(changed), harmonic_light(picture))


def test_pictures_too_small_for_nine_coefficients_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`images` should be at least 8 pixels wide and high. Found \(8, 7\)."):
        harmonic_light(torch.rand(1, 3, 8, 7))
