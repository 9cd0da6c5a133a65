"""Sets of pairs whose distance is known: unchanged pictures, a right angle, and one population."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffaudit.study.paired_sets import set_distances


def units(count: int, *, seed: int, dimension: int = 8) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return nn.functional.normalize(torch.randn(count, dimension, generator=generator, dtype=torch.float64), dim=1)


def test_pictures_that_did_not_change_are_at_distance_zero() -> None:
    clean = units(60, seed=0)
    found, notes = set_distances({"attack": clean}, clean, resamples=100)
    assert found["attack"] == {"kernel_distance": {"value": 0, "low": 0, "high": 0}, "frechet_distance": None}
    assert notes == ["frechet_distance: needs at least 2048 images, has 60."]


def test_sets_at_a_right_angle_in_closed_form() -> None:
    """The kernel is 8 within and 1 across."""
    clean, moved = torch.eye(2, dtype=torch.float64)[:, None].expand(-1, 50, -1)
    found, _ = set_distances({"attack": moved, "rebuilt": clean}, clean, resamples=100)
    assert list(found["attack"]["kernel_distance"].values()) == pytest.approx([14.0] * 3)
    assert found["rebuilt"]["kernel_distance"]["value"] == 0


def test_too_few_images_have_a_reason_and_no_number() -> None:
    found, notes = set_distances({"attack": units(49, seed=0)}, units(49, seed=1))
    assert found["attack"] == {"kernel_distance": None, "frechet_distance": None}
    assert notes == [
        "kernel_distance: needs at least 50 images, has 49.",
        "frechet_distance: needs at least 2048 images, has 49.",
    ]


def test_frechet_distance_in_closed_form() -> None:
    """Pictures to the left and right of a point, and a step of 1 away: equal spreads, means at distance 1."""
    clean = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).repeat(1024, 1)
    found, notes = set_distances({"attack": clean + 1}, clean, resamples=100)
    assert found["attack"]["frechet_distance"] == {"value": pytest.approx(1.0), "low": None, "high": None}
    assert notes == []


@pytest.mark.parametrize("drift", [0.0, 0.5])
def test_coverage_of_the_interval(drift: float) -> None:
    """Pictures are drawn anew for every study; the truth is the mean of all, or 0 where both sets are alike."""
    found = []
    for study in range(150):
        clean, other = units(60, seed=2 * study), units(60, seed=2 * study + 1)
        images = nn.functional.normalize(clean + other + drift, dim=1)
        distance = set_distances({"attack": images}, clean, resamples=300)[0]["attack"]["kernel_distance"]
        found.append(list(distance.values()))
    values, low, high = np.array(found).T
    truth = values.mean() if drift else 0.0
    assert abs(values.mean() - truth) < 3 * values.std() / len(values) ** 0.5
    assert np.mean((low <= truth) & (truth <= high)) >= 0.91
