"""SHA-256 of what is in memory: modules, pictures and texts that came from no one file."""

import hashlib

import torch
from torch import Tensor, nn


def tensor_fingerprint(tensor: Tensor) -> str:
    """SHA-256 of a tensor's values, whatever device it is on; its shape and kind of numbers count.

    >>> tensor_fingerprint(torch.zeros(2)) == tensor_fingerprint(torch.zeros(2, 1))
    False
    """
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    digest.update(_bytes(tensor))
    return digest.hexdigest()


def module_fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's state, names and values."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(value))
    return digest.hexdigest()


def text_fingerprint(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _bytes(tensor: Tensor) -> bytes:
    content: bytes = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    return content
