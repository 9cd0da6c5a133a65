"""Pictures as files hold them: eight bits a channel."""

from torch import Tensor


def to_bytes(images: Tensor) -> Tensor:
    """``images (..., 3, H, W)`` about [0, 1] to the nearest of 256 levels, ``uint8``; what lies outside is clipped.

    >>> import torch
    >>> to_bytes(torch.tensor([-0.2, 0.0, 0.5, 1.0, 1.3]))
    tensor([  0,   0, 128, 255, 255], dtype=torch.uint8)
    """
    return (images.detach().clamp(0, 1) * 255).round().byte()
