"""What can be told of the judges' side before the attack, no file of theirs opened: is it there, is it enough?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from diffaudit import settings as s
from diffaudit.build.pictures import opened
from diffaudit.data.folders import ImageFolder
from diffaudit.errors import InvalidSetting
from diffaudit.settings.base import Section
from diffaudit.training.populations import PRIVATE


def check_presence(settings: s.AuditSettings) -> None:
    """Refuses settings whose judging names a file or folder that is not there.

    Raises:
        InvalidSetting: a path under ``judging`` does not exist.
    """
    for key, path in _paths(settings.judging, "judging"):
        if not path.exists():
            raise InvalidSetting(key, "be a file or folder that is there", str(path), "Nothing has been done yet.")


def check_people(settings: s.InversionSettings, num_classes: int) -> None:
    """Refuses private pictures that cannot be the target's classes, or that rows of reference need more of.

    A class is the place of a person's name: with one name too many, everybody after it would be another class.

    Args:
        settings: of the run; private folders are listed, no picture is opened.
        num_classes: of the target.

    Raises:
        InvalidSetting: drawn people are fewer than the classes, or people of a folder not as many; somebody has a
            single picture, which has no other one to be compared with, and ``reference_rows`` are asked for.
    """
    remedy = "Name judges and private pictures of the same classes under `judging`."
    match settings.judging.private:
        case s.PrivateFaces():
            if num_classes > PRIVATE:
                raise InvalidSetting(
                    "judging.private", f"show every class of the target, {num_classes}", PRIVATE, remedy
                )
        case s.PictureFolders() as section:
            folders = opened(section)
            people = sum(len(folder.names) for folder in folders)
            if people != num_classes:
                rule = f"show every class of the target and nobody else, {num_classes}"
                raise InvalidSetting("judging.private", rule, people, remedy)
            if settings.reference_rows:
                _require_two_pictures(folders)


def _require_two_pictures(folders: Sequence[ImageFolder]) -> None:
    for folder in folders:
        counts = torch.bincount(folder.labels, minlength=len(folder.names)).tolist()
        few = [name for name, count in zip(folder.names, counts, strict=True) if count < 2]
        if few:
            raise InvalidSetting(
                "judging.private",
                "show every person in two pictures or more",
                f"{len(few)} with fewer: {', '.join(few[:5])}",
                "Add pictures, or set `reference_rows` to false.",
            )


def _paths(section: Section, name: str) -> Iterator[tuple[str, Path]]:
    """Every path below a section, by its dotted key."""
    for key in type(section).model_fields:
        yield from _paths_of(getattr(section, key), f"{name}.{key}")


def _paths_of(value: object, name: str) -> Iterator[tuple[str, Path]]:
    if isinstance(value, Path):
        yield name, value
    elif isinstance(value, Section):
        yield from _paths(value, name)
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _paths_of(member, f"{name}.{key}")
    elif isinstance(value, list):
        for number, member in enumerate(value):
            yield from _paths_of(member, f"{name}.{number}")
