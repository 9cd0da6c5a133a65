from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffaudit.data.folders import ImageFolder, natural_order, open_folder, read_image
from diffaudit.errors import InvalidSetting


def save(path: Path, image: Image.Image) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def noise(height: int, width: int, *, seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("s10/1.png", "s2/10.png", "s2/9.PNG", "s1/b.bmp", "s1/A.png"):
        save(tmp_path / name, Image.fromarray(noise(12, 12, seed=len(name))))
    (tmp_path / "readme.txt").write_text("not a class")
    (tmp_path / "s1" / "notes.txt").write_text("not an image")
    (tmp_path / "s1" / ".hidden.png").write_text("not an image")
    (tmp_path / ".cache").mkdir()
    return tmp_path


def test_classes_and_files_come_in_natural_order(root: Path) -> None:
    folder = open_folder(root)
    assert folder.names == ("s1", "s2", "s10")
    assert [path.relative_to(root).as_posix() for path in folder.paths] == [
        "s1/A.png",
        "s1/b.bmp",
        "s2/9.PNG",
        "s2/10.png",
        "s10/1.png",
    ]
    assert folder.labels.tolist() == [0, 0, 1, 1, 2]
    assert folder.labels.dtype == torch.long


def test_the_folder_can_be_named_by_a_string(root: Path) -> None:
    assert open_folder(str(root)).paths == open_folder(root).paths


def test_natural_order_breaks_ties_by_spelling() -> None:
    names = ["a1", "a01", "B", "b", "10", "9", "a10b2", "a10b10"]
    ordered = [path.name for path in sorted(map(Path, names), key=natural_order)]
    assert ordered == ["9", "10", "a01", "a1", "a10b2", "a10b10", "B", "b"]


def test_pixels_of_the_right_size_are_read_as_they_are(tmp_path: Path) -> None:
    pixels = noise(16, 16)
    save(tmp_path / "a" / "1.png", Image.fromarray(pixels))
    folder = open_folder(tmp_path)
    exact = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    assert torch.equal(folder.read(size=16, dtype=torch.uint8), exact)
    assert torch.equal(folder.read(size=16), exact.float() / 255)
    assert folder.read(size=16, dtype=torch.float64).dtype == torch.float64


@pytest.mark.parametrize(("height", "width"), [(8, 20), (20, 8)])
def test_the_centre_of_the_picture_is_kept(tmp_path: Path, height: int, width: int) -> None:
    pixels = noise(height, width)
    top, left = (height - 8) // 2, (width - 8) // 2
    image = read_image(save(tmp_path / "1.png", Image.fromarray(pixels)), size=8)
    assert torch.equal(image, torch.from_numpy(pixels[top : top + 8, left : left + 8]).permute(2, 0, 1))


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    checks = (np.indices((64, 64)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = read_image(save(tmp_path / "1.png", Image.fromarray(checks)), size=8)
    assert (image.float() - 127.5).abs().max() < 8


def test_grey_and_palette_become_rgb(tmp_path: Path) -> None:
    grey = read_image(save(tmp_path / "grey.png", Image.new("L", (8, 8), 77)), size=8)
    assert grey.unique().tolist() == [77]
    red = Image.new("RGB", (8, 8), (200, 0, 0)).convert("P")
    assert read_image(save(tmp_path / "palette.png", red), size=8).shape == (3, 8, 8)


def test_sixteen_bits_become_eight(tmp_path: Path) -> None:
    levels = np.array([[0, 65535], [32896, 257]], dtype=np.uint16)
    image = read_image(save(tmp_path / "deep.png", Image.fromarray(levels)), size=2)
    assert image[0].tolist() == [[0, 255], [128, 1]]


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    image = read_image(save(tmp_path / "1.png", Image.new("RGBA", (4, 4), (0, 0, 0, 0))), size=4)
    assert image.unique().tolist() == [255]


def test_a_turned_photograph_is_read_upright(tmp_path: Path) -> None:
    pixels = noise(8, 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise to see it upright
    Image.fromarray(pixels).save(tmp_path / "1.png", exif=exif)
    upright = torch.from_numpy(np.rot90(pixels, k=-1).copy()).permute(2, 0, 1)
    assert torch.equal(read_image(tmp_path / "1.png", size=8), upright)


def test_rows_are_chosen_by_position(root: Path) -> None:
    folder = open_folder(root)
    for index in ([4, 0], torch.tensor([4, 0])):
        part = folder[index]
        assert part.paths == (folder.paths[4], folder.paths[0])
        assert part.labels.tolist() == [2, 0]
        assert part.names == folder.names
    assert torch.equal(folder[[3]].read(size=12), folder.read(size=12)[3:4])


def test_only_some_classes_are_labelled_anew(root: Path) -> None:
    part = open_folder(root).only(["s10", "s1"])
    assert part.names == ("s10", "s1")
    assert [path.parent.name for path in part.paths] == ["s1", "s1", "s10"]
    assert part.labels.tolist() == [1, 1, 0]
    with pytest.raises(InvalidSetting, match=r"`names` should be classes of the folder\. Found \['s3'\]"):
        open_folder(root).only(["s1", "s3"])


def test_digests_are_of_the_bytes(root: Path) -> None:
    folder = open_folder(root)
    assert folder.digests() == [hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.paths]


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"`root` should be a folder .*nowhere.*does not exist"):
        open_folder(tmp_path / "nowhere")


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.png", Image.new("L", (4, 4)))
    with pytest.raises(InvalidSetting, match=r"`root` should hold a sub-folder .*no sub-folder"):
        open_folder(tmp_path)


def test_an_empty_class_is_named(root: Path) -> None:
    (root / "s7").mkdir()
    with pytest.raises(InvalidSetting, match=r"`root` should hold an image in every class\. Found .*s7"):
        open_folder(root)


def test_a_file_that_is_no_image_is_named(root: Path) -> None:
    (root / "s2" / "11.jpg").write_bytes(b"GIF, honestly")
    with pytest.raises(InvalidSetting, match=r"`images` should be readable by pillow\. Found .*s2/11\.jpg"):
        open_folder(root).read(size=8)


def test_a_cut_off_file_is_named(root: Path) -> None:
    path = root / "s2" / "9.PNG"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(InvalidSetting, match=r"Found .*s2/9\.PNG"):
        open_folder(root).read(size=8)


def test_a_vanished_file_is_named(root: Path) -> None:
    folder = open_folder(root)
    folder.paths[0].unlink()
    with pytest.raises(InvalidSetting, match=r"Found .*s1/A\.png"):
        folder.read(size=8)


def test_levels_without_a_range_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "1.tiff", Image.fromarray(np.zeros((4, 4), dtype=np.float32)))
    with pytest.raises(InvalidSetting, match=r"1\.tiff.*mode F"):
        read_image(path, size=4)


@pytest.mark.parametrize(
    ("size", "dtype", "message"),
    [
        (0, torch.float32, "`size` should be a positive"),
        (8, torch.int64, "`dtype` should be torch.uint8 or a floating"),
    ],
)
def test_sizes_and_types_are_checked_before_reading(size: int, dtype: torch.dtype, message: str) -> None:
    folder = ImageFolder((Path("nowhere.png"),), torch.tensor([0]), ("a",))
    with pytest.raises(InvalidSetting, match=message):
        folder.read(size=size, dtype=dtype)
