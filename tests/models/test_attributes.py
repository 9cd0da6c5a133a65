import torch
from torch import Tensor, nn

from diffaudit.models.attributes import ATTRIBUTE_NAMES, ATTRIBUTES, AttributeEstimator, low_pass_light


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
