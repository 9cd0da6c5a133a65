"""Judged images as the 8-bit PNG files that reports show: written, and read back."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def save_pictures(folder: Path, images: Tensor, labels: Tensor | None = None, *, numbers: Tensor | None = None) -> None:
    """Byte images ``(B, 3, H, W)`` as ``<label>-<number within label>.png``, or as ``<number>.png`` if numbered."""
    folder.mkdir(parents=True, exist_ok=True)
    seen: dict[int, int] = {}
    for index, image in enumerate(images):
        if numbers is not None:
            name = f"{int(numbers[index]):05d}.png"
        elif labels is not None:
            label = int(labels[index])
            name = f"{label:04d}-{seen.get(label, 0):02d}.png"
            seen[label] = seen.get(label, 0) + 1
        else:
            name = f"{index:05d}.png"
        path = folder / name
        partial = path.with_suffix(".partial")
        Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(partial, format="PNG")
        partial.replace(path)


def read_pictures(folder: Path, count: int) -> Tensor:
    """The first ``count`` pictures that :func:`save_pictures` wrote by their place, ``(count, 3, H, W)`` bytes."""
    pictures = []
    for index in range(count):
        with Image.open(folder / f"{index:05d}.png") as file:
            pictures.append(torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1))
    return torch.stack(pictures)
