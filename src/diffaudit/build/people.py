"""Whether the private pictures can be the target's classes, and are enough to judge by; none is opened."""

from collections.abc import Sequence

import torch

from diffaudit import settings as s
from diffaudit.build.pictures import opened
from diffaudit.data.folders import ImageFolder
from diffaudit.errors import InvalidSetting
from diffaudit.training.populations import PRIVATE


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
