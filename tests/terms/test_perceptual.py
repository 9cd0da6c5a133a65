import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.models.networks import Network
from diffaudit.models.perceptual import PerceptualFeatures, perceptual_distance
from diffaudit.terms import HierarchicalPerceptual, Perceptual, feature_map_distance, hierarchical_distance
from diffaudit.terms.perceptual import depth_weights


def candidate_with(image: Tensor, source: Tensor) -> Candidate:
    target = torch.zeros(len(image), dtype=torch.long)
    return Candidate(image=image, source=source, target=target, logits=torch.zeros(len(image), 2))


def pyramid(images: Tensor) -> list[Tensor]:
    return [images, 2 * images[..., ::2, ::2]]


def test_by_hand() -> None:
    first = [torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]]), torch.tensor([[[[2.0]]], [[[1.0]]]])]
    second = [torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 1)]
    assert feature_map_distance(first, second).tolist() == [9.0, 1.0]


def test_each_layer_counts_once_whatever_its_size() -> None:
    small, large = torch.ones(2, 3, 2, 2), torch.ones(2, 8, 16, 16)
    assert feature_map_distance([small, large], [0 * small, 0 * large]).tolist() == [2.0, 2.0]


def test_constant_difference_in_closed_form() -> None:
    source = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    shift = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    values = Perceptual(pyramid)(candidate_with(source + shift[:, None, None, None], source))
    torch.testing.assert_close(values, (1 + 4) * shift.square())


def test_term_is_the_formula() -> None:
    image, source = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    expected = feature_map_distance(pyramid(image), pyramid(source))
    assert torch.equal(Perceptual(pyramid)(candidate_with(image, source)), expected)


def test_source_gets_no_gradient() -> None:
    image, source = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8, requires_grad=True)
    Perceptual(pyramid)(candidate_with(image, source)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert source.grad is None


def test_extractor_sees_the_source_without_gradient_and_the_image_with_it() -> None:
    seen = []

    def extractor(images: Tensor) -> list[Tensor]:
        seen.append((images.mean().item(), torch.is_grad_enabled()))
        return [images]

    Perceptual(extractor)(candidate_with(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))
    assert sorted(seen) == [(0.0, False), (1.0, True)]


def test_extractor_module_is_part_of_the_term() -> None:
    class Layer(nn.Conv2d):
        def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
            return [super().forward(images)]

    assert set(Perceptual(Layer(3, 4, 3)).state_dict()) == {"extractor.weight", "extractor.bias"}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], "`first` should hold as many layers as `second`, 0, and at least one. Found 0."),
        ([torch.zeros(1, 2, 2, 2)], [], "`first` should hold as many layers as `second`, 0"),
        (
            [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)],
            [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 1, 1)],
            r"`first\[1\]` should have .* `second\[1\]`, \(1, 2, 1, 1\). Found \(1, 2, 2, 2\).",
        ),
    ],
)
def test_refusals(first: list[Tensor], second: list[Tensor], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        feature_map_distance(first, second)


def channels(*rows: tuple[float, ...]) -> Tensor:
    """One place an image, ``(B, C, 1, 1)``."""
    return torch.tensor(rows)[:, :, None, None]


class Pyramid(Network):
    def maps(self, images: Tensor) -> list[Tensor]:
        return [images, images[..., ::2, ::2] ** 2, images[..., ::4, ::4] ** 3]


def test_hierarchy_by_hand() -> None:
    red, green, both = channels((5.0, 0.0)), channels((0.0, 0.1)), channels((3.0, 4.0))
    # 2 from red to green; from (1, 0) to (0.6, 0.8): 0.16 + 0.64.
    found = hierarchical_distance([red, red, red], [green, both, red])
    assert found.item() == pytest.approx(0.2 * 2 + 0.5 * 0.8)
    assert hierarchical_distance([red, red, red], [red, red, green]).item() == pytest.approx(0.3 * 2)


def test_places_are_averaged_and_layers_are_not() -> None:
    red, green = channels((1.0, 0.0)), channels((0.0, 1.0))
    half = torch.cat([red, green], dim=3)
    found = hierarchical_distance([half, red], [half.flip(3), red], [1.0, 1.0])
    assert found.item() == pytest.approx(2.0)
    found = hierarchical_distance([half, red], [red.expand(1, 2, 1, 2), green], [1.0, 1.0])
    assert found.item() == pytest.approx(1.0 + 2.0)


def test_opposite_features_reach_the_upper_bound() -> None:
    layers = [torch.randn(2, 3, 4, 4) for _ in range(3)]
    found = hierarchical_distance(layers, [-layer for layer in layers])
    torch.testing.assert_close(found, torch.full((2,), 4.0))


def test_equal_weights_give_the_distance_that_judges_measure() -> None:
    features = PerceptualFeatures(Pyramid())
    first, second = torch.rand(2, 3, 3, 8, 8) + 0.1
    found = hierarchical_distance(features(first), features(second), [1.0, 1.0, 1.0])
    torch.testing.assert_close(found, perceptual_distance(features, first, second))


def test_the_plain_term_sees_how_loud_features_are() -> None:
    features, image = PerceptualFeatures(Pyramid()), torch.full((1, 3, 4, 4), 0.25)
    louder = candidate_with(3 * image, image)
    layers = [(0.75**power - 0.25**power) ** 2 for power in (1, 2, 3)]
    assert Perceptual(features)(louder).item() == pytest.approx(sum(layers))
    assert HierarchicalPerceptual(features)(louder).item() == pytest.approx(0, abs=1e-6)


def test_without_normalised_channels_the_layer_of_largest_activations_decides() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = ([torch.rand(1, 4, 4, 4, generator=generator) for _ in range(3)] for _ in range(2))
    louder = ([100 * pair[0], *pair[1:]] for pair in (first, second))

    def fault(one: list[Tensor], other: list[Tensor]) -> float:
        pairs = zip((0.2, 0.5, 0.3), one, other, strict=True)
        return sum(weight * float((a - b).square().mean()) for weight, a, b in pairs)

    loud_first, loud_second = louder
    assert fault(loud_first, loud_second) > 1000 * fault(first, second)
    torch.testing.assert_close(hierarchical_distance(loud_first, loud_second), hierarchical_distance(first, second))


def test_channels_that_are_all_0_have_a_gradient_that_is_a_number() -> None:
    layer = torch.zeros(1, 3, 2, 2, requires_grad=True)
    hierarchical_distance([layer], [torch.ones(1, 3, 2, 2)], [1.0]).sum().backward()
    assert layer.grad is not None
    assert layer.grad.isfinite().all()


def test_hierarchical_term_is_the_formula() -> None:
    image, source = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    expected = hierarchical_distance(pyramid(image), pyramid(source), (0.7, 0.3))
    term = HierarchicalPerceptual(pyramid, weights=(0.7, 0.3))
    assert torch.equal(term(candidate_with(image, source)), expected)


def test_hierarchical_term_gives_the_source_no_gradient() -> None:
    image, source = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8, requires_grad=True)
    HierarchicalPerceptual(pyramid, weights=(1.0, 1.0))(candidate_with(image, source)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert source.grad is None


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ((), "`weights` should hold at least one weight."),
        ((0.2, -0.5), r"`weights\[1\]` should be a finite number of at least 0. Found -0.5."),
        ((math.inf,), r"`weights\[0\]` should be a finite number"),
    ],
)
def test_weights_are_refused_before_any_work(weights: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        HierarchicalPerceptual(pyramid, weights=weights)


def test_another_number_of_layers_is_refused() -> None:
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(
        InvalidSetting, match=r"`weights` should hold one weight a layer, 2 in all. Found \(0.2, 0.5, 0"
    ):
        HierarchicalPerceptual(pyramid, weights=(0.2, 0.5, 0.3))(candidate_with(image, image))


def test_depths_are_weighed_alike_whatever_their_number() -> None:
    """Constant differences of 1 in every layer: the distance is the sum of the weights, wherever they fall."""
    red, green = torch.eye(3)[:2, None, :, None, None]
    for layers in (1, 2, 3, 5):
        found = hierarchical_distance([red] * layers, [green] * layers)
        torch.testing.assert_close(found, torch.tensor([2.0]))
        assert sum(depth_weights(layers)) == pytest.approx(1)
    assert depth_weights(2) == pytest.approx((0.4, 0.6))
