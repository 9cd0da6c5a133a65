"""Checkpoints of weights on disk, read without running what they may hold."""

import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from diffaudit.errors import InvalidSetting, UnsafeArchive


def read_state(path: Path, key: str = "weights") -> dict[str, Any]:
    """The state dict in safetensors or in a checkpoint of torch, there also under the name ``state_dict``.

    ``key`` is the setting that messages name.

    Raises:
        InvalidSetting: ``path`` is no file, no checkpoint, or holds no state dict.
        UnsafeArchive: it holds more than tensors, which would have to be unpickled.
    """
    if not path.is_file():
        raise InvalidSetting(key, "be a file", str(path))
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise _broken(key, path, error) from error
    if not _looks_saved_by_torch(path):
        raise _broken(key, path, "it is neither an archive nor a pickle")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeArchive(
            f"{path} holds more than tensors, or is cut off. Save `model.state_dict()` alone."
        ) from error
    except (EOFError, LookupError, RuntimeError, ValueError, struct.error) as error:
        raise _broken(key, path, error) from error
    if not isinstance(state, dict):
        raise InvalidSetting(key, "hold a state dict", type(state).__name__)
    found: dict[str, Any] = state.get("state_dict", state)
    return found


def _broken(key: str, path: Path, reason: object) -> InvalidSetting:
    return InvalidSetting(
        key, "be a whole checkpoint, of safetensors or of torch", str(path), f"Reading it says: {reason}"
    )


def _looks_saved_by_torch(path: Path) -> bool:
    """A zip archive, or a pickle of before torch 1.6; of anything else torch would say that it is unsafe."""
    with path.open("rb") as file:
        return file.read(1) == pickle.PROTO or zipfile.is_zipfile(path)
