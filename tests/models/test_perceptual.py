import torch
from torch import Tensor, nn

from diffaudit.models.networks import Network, PlainNetwork
from diffaudit.models.perceptual import PerceptualFeatures, perceptual_distance, unit_channels


class TwoMaps(Network):
    """The image itself and its half size as feature maps."""

    def __init__(self) -> None:
        super().__init__()
        self.neck, self.head = nn.Flatten(), nn.Linear(1, 1)

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images, nn.functional.avg_pool2d(images, 2)]


def plain(*colour: float) -> Tensor:
    return torch.tensor(colour)[None, :, None, None].expand(1, 3, 4, 4)


def test_distance_by_hand() -> None:
    features = PerceptualFeatures(TwoMaps())
    # Unit channel vectors (1, 0, 0) and (0, 1, 0): squared distance 2 at every place of both layers.
    torch.testing.assert_close(
        perceptual_distance(features, plain(0.5, 0.0, 0.0), plain(0.0, 0.1, 0.0)), torch.tensor([4.0])
    )
    # (3, 4, 0) / 5 against (1, 0, 0): 0.16 + 0.64.
    torch.testing.assert_close(
        perceptual_distance(features, plain(0.3, 0.4, 0.0), plain(1.0, 0.0, 0.0)), torch.tensor([1.6])
    )


def test_distance_is_zero_to_itself_and_symmetric() -> None:
    features = PerceptualFeatures(PlainNetwork(4).eval(), size=64)
    first, second = torch.rand(2, 2, 3, 32, 32)
    assert torch.equal(perceptual_distance(features, first, first), torch.zeros(2))
    distance = perceptual_distance(features, first, second)
    assert (distance > 0).all()
    torch.testing.assert_close(distance, perceptual_distance(features, second, first))


def test_every_image_has_its_own_distance() -> None:
    features = PerceptualFeatures(PlainNetwork(4).eval())
    first, second = torch.rand(2, 3, 3, 64, 64)
    together = perceptual_distance(features, first, second)
    alone = torch.cat([perceptual_distance(features, first[i : i + 1], second[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_maps_are_the_network_s_own() -> None:
    network, images = PlainNetwork(4).eval(), torch.rand(1, 3, 64, 64)
    for layer, own in zip(PerceptualFeatures(network)(images), network.maps(images), strict=True):
        assert torch.equal(layer, own)


def test_unit_channels() -> None:
    maps = unit_channels(PerceptualFeatures(PlainNetwork(4).eval(), size=64)(torch.rand(1, 3, 16, 16)))
    assert len(maps) == 3
    for layer in maps:
        norms = layer.norm(dim=1)
        torch.testing.assert_close(norms, torch.ones_like(norms))
