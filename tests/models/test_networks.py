import pytest
import torch

from diffaudit.errors import InvalidSetting
from diffaudit.models.networks import ARCHITECTURES, FEATURES, SMALL_FEATURES, build_network

LARGE = ("residual", "plain", "depthwise")
SMALL = tuple(name for name in ARCHITECTURES if name not in LARGE)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_are_the_head_of_the_features(architecture: str) -> None:
    network = build_network(architecture, 7).eval()
    images = torch.rand(2, 3, 64, 64)
    features = network.features(images)
    assert features.shape == (2, SMALL_FEATURES if architecture in SMALL else FEATURES)
    assert network(images).shape == (2, 7)
    torch.testing.assert_close(network(images), features @ network.head.weight.T + network.head.bias)


@pytest.mark.parametrize("architecture", LARGE)
def test_maps_go_from_fine_to_coarse_and_end_at_four_by_four(architecture: str) -> None:
    maps = build_network(architecture, 2).eval().maps(torch.rand(1, 3, 64, 64))
    sides = [layer.shape[-1] for layer in maps]
    assert sides == [16, 8, 4]
    assert all(layer.shape[-2] == layer.shape[-1] for layer in maps)


@pytest.mark.parametrize("architecture", SMALL)
def test_small_members_are_small_and_end_at_eight_by_eight(architecture: str) -> None:
    network = build_network(architecture, 10).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) < 11_000
    assert network.maps(torch.rand(1, 3, 64, 64))[-1].shape[-2:] == (8, 8)


@pytest.mark.parametrize("architecture", SMALL)
def test_the_last_map_is_what_a_small_member_answers_from(architecture: str) -> None:
    """The gradient at the last map, which Grad-CAM weighs channels by: one value for each half and channel."""
    network = build_network(architecture, 3).eval()
    last = network.maps(torch.rand(1, 3, 64, 64))[-1].detach().requires_grad_()
    (gradient,) = torch.autograd.grad(network.head(network.neck(last))[0, 1], last)
    for half in gradient[0].chunk(2, dim=1):
        torch.testing.assert_close(half, half.mean((1, 2), keepdim=True).expand_as(half))
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_images_of_a_batch_do_not_influence_each_other(architecture: str) -> None:
    network = build_network(architecture, 3).eval()
    images = torch.rand(3, 3, 64, 64)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, rtol=1e-4, atol=1e-5)


def test_the_families_differ() -> None:
    kinds = {name: {type(module).__name__ for module in build_network(name, 2).modules()} for name in ARCHITECTURES}
    assert "BatchNorm2d" in kinds["residual"]
    assert "MaxPool2d" in kinds["plain"]
    assert "GELU" in kinds["depthwise"]
    assert not {"BatchNorm2d", "MaxPool2d"} & kinds["depthwise"]
    assert not {"BatchNorm2d", "MaxPool2d", "GroupNorm"} & kinds["mixer"]


def test_an_unknown_family_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"residual, plain, depthwise, .*, mixer"):
        build_network("transformer", 2)
