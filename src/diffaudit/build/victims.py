"""Settings to the labelled pictures of a perturbation, and the words of their classes."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import assert_never

import torch
from torch import Tensor

from diffaudit import settings as s
from diffaudit.data.captions import CLEAR_HAIR, HAIR_LABELS, hair_clearness, hair_labels
from diffaudit.data.faces import sample_faces
from diffaudit.data.hair_seen import hair_labels_seen
from diffaudit.data.labelled import read_labelled
from diffaudit.data.rendering import render_faces
from diffaudit.eight_bit import to_bytes
from diffaudit.errors import InvalidSetting
from diffaudit.training.populations import unseen_crowd


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """``images (N, 3, H, W) uint8`` of ``labels (N,)``, what each is called, and the words of all classes.

    ``deserved`` says which label each of the pictures deserves after a change, ``(N, 3, H, W)`` in [0, 1] to ``(N,)``;
    None where nobody can tell without looking.
    """

    images: Tensor
    labels: Tensor
    names: tuple[str, ...]
    classes: tuple[str, ...]
    deserved: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.images)


def victims(setting: s.Victims) -> LabelledImages:
    """The pictures to perturb.

    Raises:
        InvalidSetting: more faces than the crowd has with clear hair; whatever
            :func:`~diffaudit.data.labelled.read_labelled` refuses.
    """
    match setting:
        case s.WordedFaces(count=count, seed=seed, skip=skip):
            crowd = unseen_crowd()
            clear = crowd[hair_clearness(crowd) >= CLEAR_HAIR]
            if skip + count > len(clear):
                raise InvalidSetting("images.count", f"be at most {len(clear)}, those skipped included", skip + count)
            order = torch.randperm(len(clear), generator=torch.Generator().manual_seed(seed))
            people = clear[order[skip : skip + count]]
            faces = sample_faces(people, seed=seed + 99_000)
            images = to_bytes(render_faces(faces))
            names = tuple(f"face-{number:04d}" for number in range(skip, skip + count))
            return LabelledImages(images, hair_labels(people), names, HAIR_LABELS, partial(hair_labels_seen, faces))
        case s.LabelledPictures():
            found = read_labelled(
                setting.folder,
                setting.labels,
                setting.names,
                first_class=setting.first_class,
                size=setting.size,
                every=setting.every,
                count=setting.count,
            )
            return LabelledImages(*found)
        case _:
            assert_never(setting)
