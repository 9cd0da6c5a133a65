from pathlib import Path

import numpy as np
import pytest
import torch

from diffaudit.data.faces import photographs, sample_identities
from diffaudit.data.rendering import render_faces
from diffaudit.errors import InvalidSetting
from diffaudit.training.pool import RenderedPool, even_rows, rendered_pool

PEOPLE = sample_identities(3, seed=5)


@pytest.fixture(scope="module")
def pool() -> RenderedPool:
    return rendered_pool(PEOPLE, 2, seed=6)


def test_a_pool_holds_the_photographs_as_bytes(pool: RenderedPool) -> None:
    faces, labels = photographs(PEOPLE, 2, seed=6)
    assert pool.labels.tolist() == labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(pool.faces.pose, faces.pose)
    assert pool.images.dtype == torch.uint8
    torch.testing.assert_close(pool.at(torch.arange(6)), render_faces(faces), atol=0.5 / 255 + 1e-6, rtol=0)


def test_a_draw_is_the_rows_it_names(pool: RenderedPool) -> None:
    images, rows = pool.draw(40, torch.Generator().manual_seed(0))
    assert torch.equal(images, pool.images[rows].float() / 255)
    assert set(rows.tolist()) == set(range(6))
    again, _ = pool.draw(40, torch.Generator().manual_seed(0))
    assert torch.equal(images, again)


def test_the_cache_is_written_once_and_read(
    pool: RenderedPool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "work" / "public.npy"
    first = rendered_pool(PEOPLE, 2, seed=6, cache=cache)
    monkeypatch.delattr("diffaudit.training.pool.render_faces")
    second = rendered_pool(PEOPLE, 2, seed=6, cache=cache)
    assert torch.equal(first.images, pool.images)
    assert torch.equal(second.images, pool.images)
    assert [file.name for file in cache.parent.iterdir()] == ["public.npy"]


def test_a_cache_of_other_pictures_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "c.npy", np.zeros((5, 3, 64, 64), np.uint8))
    with pytest.raises(InvalidSetting, match=r"hold 6 pictures. Found 5. Delete .*c\.npy"):
        rendered_pool(PEOPLE, 2, seed=6, cache=tmp_path / "c.npy")


def test_the_photographs_of_some_keep_their_numbers(pool: RenderedPool) -> None:
    part = pool.of([2, 0])
    assert part.labels.tolist() == [0, 0, 2, 2]
    assert torch.equal(part.images, pool.images[[0, 1, 4, 5]])


def test_even_rows_by_hand() -> None:
    labels = torch.tensor([7, 2, 7, 7, 2, 7])
    assert even_rows(labels, 3).tolist() == [1, 4, 1, 0, 2, 3]
    assert labels[even_rows(labels, 5)].tolist() == [2] * 5 + [7] * 5
