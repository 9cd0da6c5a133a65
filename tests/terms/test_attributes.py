import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.models.attributes import AttributeEstimator, harmonic_light, light_estimator, low_pass_light
from diffaudit.terms import ATTRIBUTE_WEIGHTS, Attributes, attribute_distance
from diffaudit.terms.attributes import Distance

FOUND = {
    "pose": torch.tensor([[1.0, -2.0, 0.0], [0.0, 0.0, 0.0]]),
    "expression": torch.tensor([[0.0, 0.0, 0.0, 4.0], [1.0, 1.0, 1.0, 1.0]]),
    "illumination": torch.tensor([[3.0, 0.0, 0.0], [0.0, 0.0, 0.0]]),
}
SOURCE = {name: torch.zeros_like(values) for name, values in FOUND.items()}


def candidate_with(image: Tensor, source: Tensor) -> Candidate:
    target = torch.zeros(len(image), dtype=torch.long)
    return Candidate(image=image, source=source, target=target, logits=torch.zeros(len(image), 2))


def means(images: Tensor) -> Mapping[str, Tensor]:
    """The red mean as pose, the others as illumination."""
    channels = images.mean((2, 3))
    return {"pose": channels[:, :1], "illumination": channels[:, 1:]}


@pytest.mark.parametrize(
    ("distance", "expected"),
    [
        ("l1", [0.3 * 3 / 3 + 0.3 * 4 / 4 + 0.2 * 3 / 3, 0.3]),
        ("l2", [0.3 * 5 / 3 + 0.3 * 16 / 4 + 0.2 * 9 / 3, 0.3]),
    ],
)
def test_by_hand(distance: Distance, expected: list[float]) -> None:
    assert attribute_distance(FOUND, SOURCE, distance=distance).tolist() == pytest.approx(expected)


def test_attributes_without_a_weight_do_not_count() -> None:
    assert attribute_distance(FOUND, SOURCE, {"illumination": 2.0}).tolist() == [2.0, 0.0]


def test_an_attribute_counts_by_its_weight_however_many_numbers_it_has() -> None:
    for numbers in (1, 7):
        ones = {"light": torch.ones(1, numbers)}
        assert attribute_distance(ones, {"light": torch.zeros(1, numbers)}, {"light": 0.2}).item() == pytest.approx(0.2)


class Angles(nn.Module):
    """The red mean as yaw in degrees, the green mean as a smile."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))[:, :2]


def test_unscaled_degrees_drown_coefficients() -> None:
    weights, columns = {"pose": 0.3, "expression": 0.3}, {"pose": slice(0, 1), "expression": slice(1, 2)}
    source = torch.zeros(2, 3, 4, 4)
    image = source.clone()
    image[0, 0] = 1.0  # one degree further, of 20 that people differ by
    image[1, 1] = 0.3  # the smile of one in a thousand

    def values(spread: list[float]) -> list[float]:
        estimator = AttributeEstimator(Angles(), size=None, spread=torch.tensor(spread), columns=columns)
        found: list[float] = Attributes(estimator, weights)(candidate_with(image, source)).tolist()
        return found

    turned, smiling = values([1.0, 1.0])
    assert turned > 3 * smiling
    assert values([20.0, 0.1]) == pytest.approx([0.3 / 20, 0.3 * 3])


def test_term_is_the_formula() -> None:
    image, source = torch.rand(3, 3, 8, 8), torch.rand(3, 3, 8, 8)
    weights = {"pose": 0.3, "illumination": 0.2}
    expected = attribute_distance(means(image), means(source), weights, distance="l2")
    assert torch.equal(Attributes(means, weights, distance="l2")(candidate_with(image, source)), expected)


def test_a_shift_of_all_channels_in_closed_form() -> None:
    source = torch.rand(2, 3, 4, 4, dtype=torch.float64)
    term = Attributes(means, {"pose": 0.3, "illumination": 0.2})
    found = term(candidate_with(source + torch.tensor([0.1, -0.4]).view(2, 1, 1, 1), source))
    assert found.tolist() == pytest.approx([0.05, 0.2])


def test_source_gets_no_gradient() -> None:
    image, source = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8, requires_grad=True)
    Attributes(means, {"pose": 1.0})(candidate_with(image, source)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert source.grad is None


@pytest.mark.parametrize("light", [low_pass_light, harmonic_light])
def test_light_alone_needs_no_network(light: Any) -> None:
    public = torch.randint(256, (20, 3, 16, 16), dtype=torch.uint8)
    term = Attributes(light_estimator(light, public), {"illumination": 0.2})
    source = torch.rand(2, 3, 16, 16)
    image = (0.5 * source).requires_grad_()
    values = term(candidate_with(image, source))
    assert (values > 0).all()
    values.sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert term(candidate_with(source, source)).tolist() == [0.0, 0.0]


def test_weights_are_those_of_the_method() -> None:
    assert dict(ATTRIBUTE_WEIGHTS) == {"pose": 0.3, "expression": 0.3, "illumination": 0.2}


@pytest.mark.parametrize(
    ("weights", "distance", "message"),
    [
        ({}, "l1", "`weights` should name at least one attribute."),
        ({"pose": -0.3}, "l1", "`weights.pose` should be a finite number of at least 0. Found -0.3."),
        ({"pose": math.nan}, "l1", "`weights.pose` should be a finite number"),
        ({"pose": 0.3}, "l3", "`distance` should be one of l1, l2. Found 'l3'."),
    ],
)
def test_refusals_before_any_work(weights: dict[str, float], distance: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Attributes(means, weights, distance=distance)


def test_an_attribute_that_nobody_estimates_is_refused() -> None:
    image = torch.rand(1, 3, 4, 4)
    message = "`weights.expression` should name an attribute that is estimated: illumination, pose."
    with pytest.raises(InvalidSetting, match=message):
        Attributes(means)(candidate_with(image, image))


def test_shapes_that_would_broadcast_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`found.pose` should have .* `source.pose`, \(1, 3\). Found \(2, 3\)."):
        attribute_distance(FOUND, {"pose": torch.zeros(1, 3)}, {"pose": 1.0})
