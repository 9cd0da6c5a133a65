from __future__ import annotations

from collections.abc import Callable
from math import prod

import pytest
import torch
from sklearn.metrics import pairwise_distances
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from diffaudit.judging import TooFewSamplesError, coverage, density, precision, recall

MEASURES = [precision, recall, density, coverage]


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def reference_balls(sample: Tensor, points: Tensor, k: int) -> Tensor:
    """Which point lies in which ball of the sample, by scikit-learn, ``(points, sample)``."""
    radii = NearestNeighbors(n_neighbors=k).fit(sample.numpy()).kneighbors()[0][:, -1]
    return torch.as_tensor(pairwise_distances(points.numpy(), sample.numpy()) <= radii)


def test_on_a_line_by_hand() -> None:
    # References 0, 1, 3 have nearest neighbours at 1, 1, 2; images 0.5, 2.5, 10 at 2, 2, 7.5.
    references, features = torch.tensor([[0.0], [1.0], [3.0]]), torch.tensor([[0.5], [2.5], [10.0]])
    assert precision(features, references, k=1, minimum=3).tolist() == [True, True, False]
    assert density(features, references, k=1, minimum=3).tolist() == [2.0, 1.0, 0.0]
    assert recall(features, references, k=1, minimum=3).tolist() == [True, True, True]
    assert coverage(features, references, k=1, minimum=3).tolist() == [True, True, True]
    assert coverage(features[1:], references, k=1, minimum=2).tolist() == [False, False, True]


def test_balls_hold_their_border() -> None:
    references, border = torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0], [2.0]])
    assert precision(border, references, k=1, minimum=2).all()
    assert density(border, references, k=1, minimum=2).tolist() == [1.0, 1.0]
    assert coverage(border, references, k=1, minimum=2).tolist() == [False, True]
    assert recall(references, border, k=1, minimum=2).all()


@pytest.mark.parametrize("k", [1, 3, 5])
def test_by_scikit_learn(k: int) -> None:
    features, references = 0.8 * normal(70, 3) + 0.5, normal(60, 3, seed=1)
    of_references, of_features = reference_balls(references, features, k), reference_balls(features, references, k)
    assert torch.equal(precision(features, references, k=k), of_references.any(dim=1))
    assert torch.equal(recall(features, references, k=k), of_features.any(dim=1))
    assert torch.allclose(density(features, references, k=k).double(), of_references.sum(dim=1).double() / k)
    assert torch.equal(coverage(features, references, k=k), of_references.any(dim=0))


def test_equal_distributions_give_the_closed_forms() -> None:
    # An image is among the k nearest of a reference with chance k / N; a reference is missed where its k nearest
    # of the N - 1 references and B images are all references.
    count, k = 60, 5
    draws = [(normal(count, 2, seed=s), normal(count, 2, seed=500 + s)) for s in range(100)]
    densities = torch.stack([density(x, y, k=k).double().mean() for x, y in draws])
    coverages = torch.stack([coverage(x, y, k=k).double().mean() for x, y in draws])
    missed = prod((count - 1 - j) / (2 * count - 1 - j) for j in range(k))
    assert abs(densities.mean() - 1) < 3 * densities.std() / 10
    assert abs(coverages.mean() - (1 - missed)) < 3 * coverages.std() / 10


def test_the_references_themselves_are_perfect() -> None:
    sample = normal(60, 4).float() + 100
    for measure in (precision, recall, coverage):
        assert measure(sample, sample).all()


def test_images_elsewhere_score_nothing() -> None:
    for measure in MEASURES:
        assert not measure(normal(60, 4) + 50, normal(60, 4, seed=1)).any()


def test_a_dropped_mode_costs_recall_and_coverage_alone() -> None:
    references = torch.cat([normal(100, 2), normal(100, 2, seed=1) + 50])
    features = normal(100, 2, seed=2)
    assert precision(features, references).double().mean() > 0.9
    assert 0.4 < recall(features, references).double().mean() <= 0.5
    assert 0.4 < coverage(features, references).double().mean() <= 0.5


def test_one_stray_reference_moves_precision_more_than_density() -> None:
    references = torch.cat([normal(99, 2), torch.tensor([[30.0, 0.0]]).double()])
    features = normal(100, 2, seed=1) + torch.tensor([15.0, 0.0])
    assert precision(features, references).all()
    assert density(features, references).mean() < 0.25


@pytest.mark.parametrize("measure", MEASURES)
def test_blocks_change_nothing(measure: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    features, references = normal(70, 3), normal(60, 3, seed=1)
    whole = measure(features, references)
    monkeypatch.setattr("diffaudit.judging.manifold._ROWS_AT_ONCE", 7)
    assert torch.equal(measure(features, references), whole)


@pytest.mark.parametrize("measure", MEASURES)
def test_refusals(measure: Callable[..., Tensor]) -> None:
    with pytest.raises(TooFewSamplesError, match=f"at least 50 rows for the {measure.__name__}. Found 49. Judge more"):
        measure(normal(49, 4), normal(60, 4))
    with pytest.raises(TooFewSamplesError, match="`references` should have at least 4 rows"):
        measure(normal(9, 4), normal(3, 4), k=3, minimum=1)
    with pytest.raises(ValueError, match=r"`k` should be a positive integer. Found 0."):
        measure(normal(60, 4), normal(60, 4), k=0)
    with pytest.raises(ValueError, match="`references` should hold finite numbers"):
        measure(normal(60, 4), normal(60, 4) / 0)
