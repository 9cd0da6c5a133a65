from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import sklearn.datasets
import torch

from diffaudit.data.downloads import fetch_lfw, fetch_olivetti
from diffaudit.data.folders import ImageFolder
from diffaudit.errors import InvalidSetting, MissingExtra

LABELS = np.array([1, 0, 1, 0, 1])


def offline(monkeypatch: pytest.MonkeyPatch, name: str, faces: SimpleNamespace) -> list[dict[str, object]]:
    """Puts a function that returns ``faces`` in the place of scikit-learn's, and returns the list of its calls."""
    calls: list[dict[str, object]] = []

    def fetch(**arguments: object) -> SimpleNamespace:
        calls.append(arguments)
        return faces

    monkeypatch.setattr(sklearn.datasets, name, fetch)
    return calls


def test_olivetti_becomes_a_folder_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (5, 64, 64))
    images = (levels / 255).astype(np.float32)
    calls = offline(monkeypatch, "fetch_olivetti_faces", SimpleNamespace(images=images, target=LABELS))
    folder = fetch_olivetti(tmp_path / "new", cache=tmp_path)
    assert folder.names == ("person-01", "person-02")
    assert folder.labels.tolist() == [0, 0, 1, 1, 1]
    expected = torch.from_numpy(levels[[1, 3, 0, 2, 4]]).to(torch.uint8)[:, None].expand(-1, 3, -1, -1)
    assert torch.equal(folder.read(size=64, dtype=torch.uint8), expected)
    assert fetch_olivetti(tmp_path / "new").paths == folder.paths
    assert calls == [{"data_home": tmp_path}]
    assert [entry.name for entry in (tmp_path / "new").iterdir()] == ["olivetti"]


def test_lfw_becomes_a_folder_in_colour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    levels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3))
    names = np.array(["Ada Lovelace", "Ben"])
    faces = SimpleNamespace(images=(levels / 255).astype(np.float32), target=LABELS, target_names=names)
    calls = offline(monkeypatch, "fetch_lfw_people", faces)
    folder = fetch_lfw(tmp_path, min_photos=2, size=32)
    assert folder.names == ("Ada_Lovelace", "Ben")
    expected = torch.from_numpy(levels[[1, 3, 0, 2, 4]]).to(torch.uint8).permute(0, 3, 1, 2)
    assert torch.equal(folder.read(size=32, dtype=torch.uint8), expected)
    assert calls == [
        {
            "data_home": None,
            "min_faces_per_person": 2,
            "slice_": (slice(61, 189), slice(61, 189)),
            "resize": 0.25,
            "color": True,
        }
    ]
    fetch_lfw(tmp_path, min_photos=2, size=32)
    assert len(calls) == 1


def test_a_broken_off_download_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.zeros((1, 64, 64), dtype=np.float32)
    offline(monkeypatch, "fetch_olivetti_faces", SimpleNamespace(images=images, target=LABELS))
    with pytest.raises(ValueError, match="longer"):
        fetch_olivetti(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fetch", [fetch_olivetti, fetch_lfw])
def test_without_scikit_learn_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fetch: Callable[[Path], ImageFolder]
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtra, match=r"diffaudit\[datasets\]"):
        fetch(tmp_path)


@pytest.mark.parametrize(("min_photos", "size", "name"), [(0, 64, "min_photos"), (5, 8, "size"), (5, 200, "size")])
def test_settings_are_checked_before_the_download(tmp_path: Path, min_photos: int, size: int, name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"`{name}` should be"):
        fetch_lfw(tmp_path, min_photos=min_photos, size=size)
