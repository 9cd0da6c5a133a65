from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor

from diffaudit.judging import embedding_variance, factor_error, identity_cosine, pairwise_distance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pairwise_distance_is_the_reference_in_every_class() -> None:
    features, labels = normal(10, 4), torch.tensor([5, 2, 5, 2, 2, 5, 5, 2, 9, 9])
    found = pairwise_distance(features, labels)
    for label in (2, 5, 9):
        expected = pdist(features[labels == label].numpy()).mean()
        assert found[labels == label].tolist() == pytest.approx([expected] * int((labels == label).sum()))


def test_pairwise_distance_takes_images_and_any_distance() -> None:
    images = torch.stack([torch.full((3, 2, 2), value) for value in (0.0, 1.0, 4.0)])
    found = pairwise_distance(images, torch.zeros(3).long(), lambda x, y: (x - y).abs().amax(dim=(1, 2, 3)))
    assert found.tolist() == pytest.approx([8 / 3] * 3)


def test_embedding_variance_by_hand() -> None:
    circle = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert embedding_variance(circle, torch.zeros(4).long()).tolist() == [1.0] * 4
    third = torch.tensor([[1.0, 0.0], [0.5, sqrt(3) / 2]])  # 60 degrees apart: the mean has length cos(30 degrees)
    assert embedding_variance(third, torch.zeros(2).long()).tolist() == pytest.approx([0.25] * 2)


def test_embedding_variance_is_the_mean_cosine_distance_of_pairs_up_to_the_count() -> None:
    embeddings, labels = normal(6, 5), torch.zeros(6).long()
    pairs = pairwise_distance(embeddings, labels, lambda x, y: 1 - identity_cosine(x, y))
    assert embedding_variance(embeddings, labels).tolist() == pytest.approx((pairs * 5 / 6).tolist())


def test_a_collapsed_class_has_no_diversity() -> None:
    embeddings, labels = normal(1, 5).float().repeat(4, 1), torch.full((4,), 3)
    assert pairwise_distance(embeddings, labels).tolist() == [0.0] * 4
    assert embedding_variance(embeddings, labels).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert embedding_variance(embeddings, labels).min() >= 0


@pytest.mark.parametrize("diversity", [pairwise_distance, embedding_variance])
def test_a_class_of_one_image_is_refused(diversity: Callable[[Tensor, Tensor], Tensor]) -> None:
    with pytest.raises(ValueError, match=r"`labels` should hold every class at least twice. Found class 7 once."):
        diversity(normal(3, 2), torch.tensor([1, 7, 1]))
    with pytest.raises(ValueError, match=r"`labels` should be one integer per image, 3 in all."):
        diversity(normal(3, 2), torch.tensor([1, 1]))


def test_factor_error_by_hand() -> None:
    factors, truths = torch.tensor([[1.0, 30.0], [0.0, 0.0]]), torch.tensor([[3.0, 10.0], [0.0, 5.0]])
    assert factor_error(factors, truths, torch.tensor([2.0, 10.0])).tolist() == pytest.approx([1.5, 0.25])


def test_another_identity_has_the_stated_factor_error() -> None:
    spreads = torch.tensor([0.1, 20.0, 3.0]).double()
    errors = factor_error(normal(20_000, 3) * spreads, normal(20_000, 3, seed=1) * spreads, spreads)
    assert errors.mean().item() == pytest.approx(2 / sqrt(pi), rel=0.02)


@pytest.mark.parametrize(
    ("factors", "truths", "scale", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 2), torch.ones(3), "`truths` should have 3 columns, .* Found 2."),
        (torch.zeros(2, 3), torch.zeros(1, 3), torch.ones(3), "`truths` should have one row per image, 2 in all."),
        (torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2), r"one positive spread per factor, 3 in all. .*\(2,\)"),
        (torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(1), r"Found shape \(1,\), smallest 0. Leave out"),
        (torch.full((2, 1), torch.nan), torch.zeros(2, 1), torch.ones(1), "`factors` should hold finite numbers"),
    ],
)
def test_factor_error_refuses(factors: Tensor, truths: Tensor, scale: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factor_error(factors, truths, scale)
