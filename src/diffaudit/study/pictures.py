"""Writes judged images as the 8-bit PNG files that reports show."""

from pathlib import Path

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
