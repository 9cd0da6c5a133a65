import pytest
import torch
from torch import Tensor

from diffaudit.training.augmentation import random_views


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(32, 3, 16, 16, generator=seeded(9))


def test_with_everything_off_a_view_is_the_image_or_its_mirror_image(images: Tensor) -> None:
    views = random_views(images, seeded(), shift=0, zoom=0, colour=0)
    straight = (views - images).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (views - images.flip(-1)).abs().amax((1, 2, 3)) < 1e-5
    assert (straight ^ mirrored).all()
    assert 8 <= int(mirrored.sum()) <= 24


def test_each_image_has_a_view_of_its_own_and_the_seed_decides(images: Tensor) -> None:
    same = images[:1].expand(4, -1, -1, -1)
    views = random_views(same, seeded())
    assert len({view.sum().item() for view in views}) == 4
    assert torch.equal(views, random_views(same, seeded()))
    assert not torch.equal(views, random_views(same, seeded(1)))


def test_a_view_depends_on_its_image_alone(images: Tensor) -> None:
    other = images.clone()
    other[1:] = 0.5
    torch.testing.assert_close(random_views(images, seeded())[0], random_views(other, seeded())[0])


def test_views_stay_in_range(images: Tensor) -> None:
    views = random_views(images, seeded(), colour=1.0, erase=0.5)
    assert views.shape == images.shape
    assert views.min() == 0
    assert views.max() == 1


def test_a_shift_moves_by_its_share_of_the_picture() -> None:
    """A bright column moves by at most the share asked for, and nearly as far as that in some view."""
    images = torch.zeros(200, 3, 1, 101)
    images[..., 50] = 1
    views = random_views(images, seeded(), shift=0.1, zoom=0, colour=0)
    weight = views[:, 0, 0]
    centre = (weight * torch.arange(101)).sum(1) / weight.sum(1)
    assert (centre - 50).abs().max() <= 10.2
    assert (centre - 50).abs().max() > 9


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.0), (0.3, 0.3), (1.0, 1.0)])
def test_a_grey_patch_of_a_quarter_of_the_side_is_erased_at_the_chance(chance: float, share: float) -> None:
    images = torch.ones(400, 3, 32, 32)
    views = random_views(images, seeded(), shift=0, zoom=0, colour=0, erase=chance)
    grey = (views == 0.5).all(1)
    hit = grey.flatten(1).any(1)
    assert float(hit.float().mean()) == pytest.approx(share, abs=0.06)
    if chance:
        rows, columns = grey[hit].any(2).sum(1), grey[hit].any(1).sum(1)
        assert torch.equal(grey[hit].flatten(1).sum(1), rows * columns)  # one rectangle
        for side in (rows, columns):
            assert 7 <= int(side.min()) <= int(side.max()) <= 8
