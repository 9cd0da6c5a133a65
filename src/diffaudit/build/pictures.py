"""Settings to pictures: the public ones of the attack, the private ones of the judges."""

from typing import assert_never

import torch
from torch import Tensor

from diffaudit import settings as s
from diffaudit.data.faces import photographs, sample_identities
from diffaudit.data.folders import ImageFolder, open_folder
from diffaudit.data.rendering import render_faces
from diffaudit.data.splits import halves
from diffaudit.eight_bit import to_bytes
from diffaudit.errors import InvalidSetting
from diffaudit.judging.judge import PrivatePictures
from diffaudit.training.populations import private_identities, public_identities


def public_images(setting: s.Pictures) -> Tensor:
    """Public pictures ``(N, 3, H, W) uint8``."""
    match setting:
        case s.ProceduralFaces():
            known = public_identities()
            identities = known[: setting.identities]
            if setting.identities > len(known):
                raise InvalidSetting("public.identities", f"be at most {len(known)}", setting.identities)
            faces, _ = photographs(identities, setting.per_identity, seed=setting.seed + 77_000)
            return to_bytes(render_faces(faces))
        case s.PictureFolders():
            return torch.cat([folder.read(size=setting.size, dtype=torch.uint8) for folder in opened(setting)])
        case _:
            assert_never(setting)


def private_pictures(setting: s.PrivatePictures) -> PrivatePictures:
    """Private pictures with their labels, for judging alone."""
    match setting:
        case s.PrivateFaces():
            identities = private_identities()
            faces, labels = photographs(identities, setting.per_identity, seed=setting.seed + 88_000)
            spread = sample_identities(2000, seed=404).std(0)
            return PrivatePictures(to_bytes(render_faces(faces)), labels, identities, spread)
        case s.PictureFolders():
            folders = opened(setting)
            if len(folders) != 1:
                raise InvalidSetting("judging.private.folders", "be one folder", [str(f) for f in setting.folders])
            return PrivatePictures(folders[0].read(size=setting.size, dtype=torch.uint8), folders[0].labels)
        case _:
            assert_never(setting)


def opened(setting: s.PictureFolders) -> list[ImageFolder]:
    """The folders of a section with its inclusions, exclusions and halves applied.

    Raises:
        InvalidSetting: a name is included or excluded that no folder has; what :func:`.open_folder` refuses.
    """
    found = [open_folder(path) for path in setting.folders]
    known = {name for folder in found for name in folder.names}
    unknown = sorted({*(setting.include or ()), *setting.exclude} - known)
    if unknown:
        where = ", ".join(map(str, setting.folders))
        raise InvalidSetting("include and exclude", f"name people of {where}", ", ".join(unknown[:5]))
    folders = []
    for folder in found:
        names = [
            n for n in folder.names if (setting.include is None or n in setting.include) and n not in setting.exclude
        ]
        folder = folder.only(names)
        if setting.half is not None:
            training, reference = halves(folder, seed=setting.seed)
            folder = training if setting.half == "training" else reference
        folders.append(folder)
    return folders
