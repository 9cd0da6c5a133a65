"""Labelled pictures: a folder, a list of their classes, and the names of all classes."""

import csv
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from diffaudit.data.folders import SUFFIXES, natural_order, read_image
from diffaudit.errors import InvalidSetting


class Labelled(NamedTuple):
    """``images (N, 3, size, size) uint8``, ``labels (N,)`` from 0, the pictures' names, the words of all classes."""

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]


def read_labelled(
    folder: Path,
    labels: Path,
    names: Path,
    *,
    first_class: int = 0,
    size: int = 224,
    every: int = 1,
    count: int | None = None,
) -> Labelled:
    """Return the pictures of ``folder`` (or of ``folder/images``) with their classes.

    ``labels`` is a CSV with the columns ``file`` and ``class_index``, or a text file with one number a line for the
    pictures in natural order, as the DiffAttack code has it (there classes are counted from 1: ``first_class``).
    ``names`` is a CSV with the columns ``class_index`` and ``name``, or a text file with one name a line; of several
    words for a class, divided by commas, the first counts, with spaces for underscores. Of the list each ``every``-th
    picture is read, the first one included, and ``count`` of them at most.

    Raises:
        InvalidSetting: a missing folder or list, a list of another length than the folder's pictures, a file that is
            not there, a class without a name.
    """
    inner = folder / "images"
    root = inner if inner.is_dir() else folder
    if not root.is_dir():
        raise InvalidSetting("images.folder", "be a folder of pictures", str(folder), "It does not exist.")
    classes = _class_names(names)
    pairs = [(path, number - first_class) for path, number in _listed(labels, root)][::every][:count]
    if not pairs:
        raise InvalidSetting("images.labels", "name at least one picture", str(labels))
    for path, number in pairs:
        if not path.is_file():
            raise InvalidSetting("images.labels", "name pictures of the folder", path.name, f"{path} is not there.")
        if not 0 <= number < len(classes):
            rule = f"give classes from {first_class} to {len(classes) - 1 + first_class}, which have names"
            raise InvalidSetting("images.labels", rule, number + first_class)
    images = torch.stack([read_image(path, size=size) for path, _ in pairs])
    found = torch.tensor([number for _, number in pairs])
    return Labelled(images, found, tuple(path.stem for path, _ in pairs), classes)


def _listed(labels: Path, root: Path) -> list[tuple[Path, int]]:
    if labels.suffix.lower() == ".csv":
        rows = _table(labels, "images.labels", "file", "class_index")
        return [(root / file, _number(number)) for file, number in rows]
    numbers = [_number(line) for line in _lines(labels, "images.labels")]
    paths = sorted((path for path in root.iterdir() if path.suffix.lower() in SUFFIXES), key=natural_order)
    if len(paths) != len(numbers) or not paths:
        rule = f"have a line for each of the folder's {len(paths)} pictures"
        raise InvalidSetting("images.labels", rule, len(numbers))
    return list(zip(paths, numbers, strict=True))


def _class_names(names: Path) -> tuple[str, ...]:
    if names.suffix.lower() != ".csv":
        return tuple(_words(line) for line in _lines(names, "images.names"))
    by_number = {_number(number): name for number, name in _table(names, "images.names", "class_index", "name")}
    if sorted(by_number) != list(range(len(by_number))):
        raise InvalidSetting("images.names", "name every class from 0 on, once", sorted(by_number)[:5])
    return tuple(_words(by_number[number]) for number in range(len(by_number)))


def _words(name: str) -> str:
    return name.split(",")[0].replace("_", " ").strip()


def _table(path: Path, setting: str, *columns: str) -> list[tuple[str, ...]]:
    reader = csv.DictReader(_lines(path, setting), restval="")
    missing = [column for column in columns if column not in (reader.fieldnames or ())]
    if missing:
        raise InvalidSetting(setting, f"have the columns {', '.join(columns)}", list(reader.fieldnames or ()))
    return [tuple(row[column] for column in columns) for row in reader]


def _lines(path: Path, setting: str) -> list[str]:
    try:
        return [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSetting(setting, "be readable text", str(path), str(error)) from error


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise InvalidSetting("class_index", "be an integer", text) from error
