"""Checkpoints of weights on disk, read without running what they may hold."""

import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from diffaudit.errors import InvalidSetting, UnsafeArchive


def read_state(path: Path, key: str = "weights") -> dict[str, Any]:
    """The state dict in safetensors or in a checkpoint of torch, there also under the name ``state_dict``.

    ``key`` is the setting that messages name.

    Raises:
        InvalidSetting: ``path`` is no file, or holds no state dict.
        UnsafeArchive: it holds more than tensors, which would have to be unpickled.
    """
    if not path.is_file():
        raise InvalidSetting(key, "be a file", str(path))
    if path.suffix == ".safetensors":
        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeArchive(f"{path} holds more than tensors. Save `model.state_dict()` alone.") from error
    if not isinstance(state, dict):
        raise InvalidSetting(key, "hold a state dict", type(state).__name__)
    found: dict[str, Any] = state.get("state_dict", state)
    return found
