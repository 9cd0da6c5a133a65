from __future__ import annotations

import pytest
import torch
from sklearn.metrics.pairwise import paired_cosine_distances
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from diffaudit.judging import class_means, euclidean_distances, identity_cosine, neighbour_distance, unit_embeddings


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_unit_embeddings_keep_the_direction() -> None:
    embeddings = normal(5, 3)
    units = unit_embeddings(embeddings)
    assert torch.allclose(units.norm(dim=1), torch.ones(5, dtype=torch.float64))
    assert torch.allclose(identity_cosine(units, embeddings), torch.ones(5, dtype=torch.float64))


def test_class_means_by_hand() -> None:
    embeddings = torch.tensor([[5.0, 0.0], [0.0, 1.0], [-2.0, 0.0]])  # lengths do not weigh
    means = class_means(embeddings, torch.tensor([1, 1, 4]), torch.tensor([4, 1, 4]))
    assert torch.allclose(means, torch.tensor([[-1.0, 0.0], [0.5**0.5, 0.5**0.5], [-1.0, 0.0]]))


def test_identity_cosine_is_the_reference() -> None:
    embeddings, anchors = normal(20, 6), normal(20, 6, seed=1)
    expected = 1 - paired_cosine_distances(embeddings.numpy(), anchors.numpy())
    assert identity_cosine(embeddings, anchors).tolist() == pytest.approx(expected.tolist())


def test_identity_cosine_stays_in_range() -> None:
    embeddings = normal(1000, 8).float()
    assert identity_cosine(embeddings, embeddings).max() <= 1
    assert identity_cosine(embeddings, -embeddings).min() >= -1


@pytest.mark.parametrize("k", [1, 3])
def test_neighbour_distance_is_the_reference(k: int) -> None:
    features, references = normal(12, 4), normal(40, 4, seed=1)
    labels, reference_labels = torch.arange(12) % 3, torch.arange(40) % 3
    found = neighbour_distance(features, labels, references, reference_labels, k=k)
    for label in range(3):
        search = NearestNeighbors(n_neighbors=k).fit(references[reference_labels == label].numpy())
        expected = search.kneighbors(features[labels == label].numpy())[0].mean(axis=1)
        assert found[labels == label].tolist() == pytest.approx(expected.tolist())


def test_a_private_image_is_at_distance_zero() -> None:
    references = 1000 + normal(30, 64).float()
    assert (neighbour_distance(references, torch.zeros(30).long(), references, torch.zeros(30).long()) == 0).all()


def test_half_precision_is_raised() -> None:
    distances = euclidean_distances(torch.zeros(1, 2).half(), torch.tensor([[3.0, 4.0]]).half())
    assert distances.dtype == torch.float32
    assert distances.item() == 5.0


def test_zero_embeddings_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`embeddings` should have a direction each. Found 1 of length 0."):
        unit_embeddings(torch.tensor([[0.0, 0.0], [1.0, 0.0]]))


def test_opposite_embeddings_have_no_mean() -> None:
    with pytest.raises(ValueError, match="should have a direction each"):
        class_means(torch.tensor([[1.0], [-1.0]]), torch.tensor([0, 0]), torch.tensor([0]))


def test_a_class_without_private_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at least 1 reference images. Found 0 for class 9"):
        class_means(torch.eye(2), torch.tensor([0, 1]), torch.tensor([0, 9]))
    with pytest.raises(ValueError, match=r"at least 2 reference images. Found 1 for class 0"):
        neighbour_distance(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), torch.tensor([0, 1]), k=2)


def test_shapes_must_fit() -> None:
    with pytest.raises(ValueError, match=r"`anchors` should have one row per embedding.* \(2, 3\) and \(2, 2\)"):
        identity_cosine(torch.ones(2, 2), torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`references` should have 2 columns, .* Found 3."):
        neighbour_distance(torch.eye(2), torch.tensor([0, 1]), torch.eye(3), torch.arange(3))
    with pytest.raises(ValueError, match=r"`k` should be a positive integer. Found 0."):
        neighbour_distance(torch.eye(2), torch.tensor([0, 1]), torch.eye(2), torch.arange(2), k=0)
