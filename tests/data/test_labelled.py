from pathlib import Path

import pytest
import torch
from PIL import Image

from diffaudit.data.labelled import read_labelled
from diffaudit.errors import InvalidSetting

LEVELS = {"1.png": 10, "2.png": 20, "10.png": 100}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three even pictures in ``pictures``, and a file that is none."""
    (tmp_path / "pictures").mkdir()
    for name, level in LEVELS.items():
        Image.new("RGB", (12, 8), (level, 0, 255)).save(tmp_path / "pictures" / name)
    (tmp_path / "pictures" / "read.me").write_text("no picture")
    return tmp_path / "pictures"


def listed(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_tables(tmp_path: Path, folder: Path) -> None:
    labels = listed(tmp_path, "labels.csv", "class_index,file,note\n2,10.png,x\n0,1.png,y\n")
    names = listed(tmp_path, "names.csv", 'name,class_index\nblack_crane,1\nfox,0\n"drake, male duck",2\n')
    found = read_labelled(folder, labels, names, size=4)
    assert found.images.shape == (2, 3, 4, 4)
    assert found.images.dtype == torch.uint8
    assert [image.flatten(1).unique(dim=1).flatten().tolist() for image in found.images] == [
        [100, 0, 255],
        [10, 0, 255],
    ]
    assert found.labels.tolist() == [2, 0]
    assert found.names == ("10", "1")
    assert found.classes == ("fox", "black crane", "drake")


def test_lines_are_of_the_pictures_in_natural_order(tmp_path: Path, folder: Path) -> None:
    labels = listed(tmp_path, "labels.txt", "1\n2\n\n1\n")
    names = listed(tmp_path, "names.txt", "tench, Tinca tinca\ngold_fish\n")
    found = read_labelled(folder, labels, names, first_class=1, size=4)
    assert found.names == ("1", "2", "10")
    assert found.images[:, 0, 0, 0].tolist() == [10, 20, 100]
    assert found.labels.tolist() == [0, 1, 0]
    assert found.classes == ("tench", "gold fish")


def test_the_layout_of_the_diffattack_code(tmp_path: Path, folder: Path) -> None:
    """images/ beside labels.txt, classes counted from 1."""
    folder.rename(tmp_path / "images")
    labels, names = listed(tmp_path, "labels.txt", "1\n2\n1\n"), listed(tmp_path, "names.txt", "fox\ncrane\n")
    found = read_labelled(tmp_path, labels, names, first_class=1, size=4)
    assert found.names == ("1", "2", "10")
    assert found.labels.tolist() == [0, 1, 0]


def test_the_first_so_many(tmp_path: Path, folder: Path) -> None:
    labels, names = listed(tmp_path, "labels.txt", "0\n0\n0\n"), listed(tmp_path, "names.txt", "fox\n")
    assert read_labelled(folder, labels, names, size=4, count=2).names == ("1", "2")
    assert len(read_labelled(folder, labels, names, size=4, count=9).images) == 3
    assert read_labelled(folder, labels, names, size=4, every=2).names == ("1", "10")
    assert read_labelled(folder, labels, names, size=4, every=2, count=1).names == ("1",)


@pytest.mark.parametrize(
    ("labels", "names", "first", "message"),
    [
        ("0\n1\n", "a\nb\n", 0, r"`images\.labels` should have a line for each of the folder's 3 pictures\. Found 2"),
        ("0\n1\n2\n", "a\nb\n", 0, r"`images\.labels` should give classes from 0 to 1, which have names\. Found 2"),
        ("1\n0\n1\n", "a\nb\n", 1, r"`images\.labels` should give classes from 1 to 2, which have names\. Found 0"),
        ("0\n1\nx\n", "a\nb\n", 0, r"`class_index` should be an integer\. Found 'x'"),
    ],
)
def test_lists_that_do_not_fit(tmp_path: Path, folder: Path, labels: str, names: str, first: int, message: str) -> None:
    paths = listed(tmp_path, "labels.txt", labels), listed(tmp_path, "names.txt", names)
    with pytest.raises(InvalidSetting, match=message):
        read_labelled(folder, *paths, first_class=first, size=4)


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        (
            "file,class_index\n3.png,0\n",
            "class_index,name\n0,a\n",
            r"should name pictures of the folder\. Found '3\.png'",
        ),
        ("file,label\n1.png,0\n", "class_index,name\n0,a\n", "should have the columns file, class_index"),
        ("file,class_index\n1.png,0\n", "class_index,word\n0,a\n", "should have the columns class_index, name"),
        ("file,class_index\n1.png,0\n", "class_index,name\n0,a\n2,b\n", "should name every class from 0 on, once"),
        ("file,class_index\n1.png,0\n", "class_index,name\n1,a\n2,b\n", "should name every class from 0 on, once"),
        ("file,class_index\n1.png,\n", "class_index,name\n0,a\n", "`class_index` should be an integer"),
    ],
)
def test_tables_that_do_not_fit(tmp_path: Path, folder: Path, labels: str, names: str, message: str) -> None:
    paths = listed(tmp_path, "labels.csv", labels), listed(tmp_path, "names.csv", names)
    with pytest.raises(InvalidSetting, match=message):
        read_labelled(folder, *paths, size=4)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("file,class_index\n", "`images.labels` should name at least one picture"),
        ("", "`images.labels` should have the columns"),
        ("file,class_index\n1.png\n", "`class_index` should be an integer"),
    ],
)
def test_tables_without_rows_or_cells(tmp_path: Path, folder: Path, labels: str, message: str) -> None:
    paths = listed(tmp_path, "labels.csv", labels), listed(tmp_path, "names.txt", "fox\n")
    with pytest.raises(InvalidSetting, match=message):
        read_labelled(folder, *paths, size=4)


def test_what_is_not_there(tmp_path: Path, folder: Path) -> None:
    labels, names = listed(tmp_path, "labels.txt", "0\n0\n0\n"), listed(tmp_path, "names.txt", "fox\n")
    with pytest.raises(InvalidSetting, match=r"`images\.folder` should be a folder of pictures"):
        read_labelled(tmp_path / "none", labels, names)
    with pytest.raises(InvalidSetting, match=r"`images\.labels` should be readable text"):
        read_labelled(folder, tmp_path / "none.txt", names)
    with pytest.raises(InvalidSetting, match=r"`images\.names` should be readable text"):
        read_labelled(folder, labels, tmp_path / "none.txt")
