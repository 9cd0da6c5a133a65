"""What can be told of the judges' side before the attack, no file of theirs opened: is it there, is it enough?"""

from collections.abc import Iterator
from pathlib import Path

from diffaudit import settings as s
from diffaudit.build.pictures import opened
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


def check_people(judging: s.Judging, num_classes: int) -> None:
    """Refuses private pictures of fewer people than the target tells apart: some class would be judged by nothing.

    Args:
        judging: the judges' side; folders are listed, no picture is opened.
        num_classes: of the target.

    Raises:
        InvalidSetting: there are fewer people than classes.
    """
    match judging.private:
        case s.PrivateFaces():
            people = PRIVATE
        case s.PictureFolders() as folders:
            people = sum(len(folder.names) for folder in opened(folders))
    if people < num_classes:
        remedy = "Name judges and private pictures of the same classes under `judging`."
        raise InvalidSetting("judging.private", f"show every class of the target, {num_classes}", people, remedy)


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
