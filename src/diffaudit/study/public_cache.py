"""What an attacker's models say of the public pictures, kept on disk: runs that share them look once."""

import hashlib
import json
import os
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path

import torch

from diffaudit import build
from diffaudit.inversion.attacker import PublicPictures
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.settings import PictureFolders, Pictures
from diffaudit.study.checkpoints import load_tensors, save_tensors


@dataclass(frozen=True)
class PublicCache:
    """A :data:`diffaudit.build.Look` that remembers in ``folder``; safe to share between processes.

    The file is named for all that its contents depend on (:func:`public_key`), so nothing in it grows stale: another
    target, picture, version or thread count is another file.
    """

    folder: Path

    def __call__(self, setting: Pictures, classifier: Classifier, encoder: IdentityEncoder) -> PublicPictures:
        """The pictures as seen by both models, from the disk where they were seen before."""
        path = self.folder / f"public-{public_key(setting, classifier, encoder)[:32]}.safetensors"
        kept = load_tensors(path)
        if kept is not None:
            # safetensors has no None: what is absent was hidden.
            return PublicPictures(**{field.name: kept.get(field.name) for field in fields(PublicPictures)})  # type: ignore[arg-type]
        seen = build.look_at_public(setting, classifier, encoder)
        # A name of its own until it is whole: two processes may look at the same time.
        own = path.with_name(f"{path.stem}-{os.getpid()}.safetensors")
        save_tensors(own, {name: value for name, value in vars(seen).items() if value is not None})
        own.replace(path)
        return seen


def public_key(setting: Pictures, classifier: Classifier, encoder: IdentityEncoder) -> str:
    """SHA-256 of the picture settings, the picture files, both models' weights and sizes, versions and threads."""
    about = {
        "pictures": setting.model_dump(mode="json"),
        "files": [digest for folder in build.opened(setting) for digest in folder.digests()]
        if isinstance(setting, PictureFolders)
        else [],
        "models": [classifier.fingerprint, classifier.size, encoder.fingerprint, encoder.size],
        "normalisation": [classifier.mean.flatten().tolist(), classifier.std.flatten().tolist()],
        "versions": [version("diffaudit"), torch.__version__],
        "threads": torch.get_num_threads(),
    }
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
