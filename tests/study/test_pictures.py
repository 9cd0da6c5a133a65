from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffaudit.study.pictures import save_pictures


def pixels(path: Path) -> Tensor:
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1)


def some(count: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 4, 6), dtype=torch.uint8, generator=generator)


def test_names_count_within_the_label_and_pixels_stay(tmp_path: Path) -> None:
    images = some(4)
    save_pictures(tmp_path / "a" / "b", images, torch.tensor([7, 3, 7, 3]))
    folder = tmp_path / "a" / "b"
    assert sorted(path.name for path in folder.iterdir()) == [
        "0003-00.png",
        "0003-01.png",
        "0007-00.png",
        "0007-01.png",
    ]
    assert torch.equal(pixels(folder / "0007-01.png"), images[2])
    assert torch.equal(pixels(folder / "0003-00.png"), images[1])


def test_numbers_name_pictures(tmp_path: Path) -> None:
    images = some(2)
    save_pictures(tmp_path, images, numbers=torch.tensor([12, 3]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00003.png", "00012.png"]
    assert torch.equal(pixels(tmp_path / "00003.png"), images[1])


def test_pictures_without_either_are_counted(tmp_path: Path) -> None:
    save_pictures(tmp_path, some(2))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.png", "00001.png"]


def test_the_same_pictures_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_pictures(tmp_path / name, some(1))
    assert (tmp_path / "one" / "00000.png").read_bytes() == (tmp_path / "two" / "00000.png").read_bytes()
