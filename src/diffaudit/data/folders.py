"""Image folders with a sub-folder per class, read in one order on every machine."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from diffaudit.errors import InvalidSetting

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True, eq=False)
class ImageFolder:
    """Photographs by their paths, and the class of each; pixels are read when asked for.

    Attributes:
        paths: ``N`` image files.
        labels: ``(N,)`` integers, positions in ``names``.
        names: ``C`` class names.
    """

    paths: tuple[Path, ...]
    labels: Tensor
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: Sequence[int] | Tensor) -> "ImageFolder":
        rows = torch.as_tensor(index, dtype=torch.long).tolist()
        return ImageFolder(tuple(self.paths[row] for row in rows), self.labels[rows], self.names)

    def only(self, names: Sequence[str]) -> "ImageFolder":
        """Return the photographs of the classes ``names`` alone, labelled by their place in ``names``.

        Raises:
            InvalidSetting: for a class that the folder lacks.
        """
        unknown = [name for name in names if name not in self.names]
        if unknown:
            raise InvalidSetting("names", "be classes of the folder", unknown)
        place = {self.names.index(name): position for position, name in enumerate(names)}
        rows = [row for row, label in enumerate(self.labels.tolist()) if label in place]
        part = self[rows]
        labels = torch.tensor([place[label] for label in part.labels.tolist()], dtype=torch.long)
        return ImageFolder(part.paths, labels, tuple(names))

    def read(self, *, size: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return ``(N, 3, size, size)`` images: in [0, 1] for a floating ``dtype``, in 0 to 255 for ``torch.uint8``.

        See :func:`read_image` for how a file becomes a square.

        Raises:
            InvalidSetting: for a file that is no image, which the message names.
        """
        if size < 1:
            raise InvalidSetting("size", "be a positive number of pixels", size)
        if dtype != torch.uint8 and not dtype.is_floating_point:
            raise InvalidSetting("dtype", "be torch.uint8 or a floating type", dtype)
        images = torch.empty(len(self), 3, size, size, dtype=torch.uint8)
        for row, path in enumerate(self.paths):
            images[row] = read_image(path, size=size)
        return images if dtype == torch.uint8 else images.to(dtype) / 255

    def digests(self) -> list[str]:
        """Return the SHA-256 of every file's bytes, in hexadecimal."""
        return [hashlib.sha256(path.read_bytes()).hexdigest() for path in self.paths]


def open_folder(root: Path | str) -> ImageFolder:
    """Return the images of ``root/<class>/<image>``, classes and files in natural order (``2.png`` before ``10.png``).

    Hidden entries, files beside the classes and files without an image's suffix (:data:`SUFFIXES`) are passed over.

    Raises:
        InvalidSetting: where the folder is missing, has no sub-folder, or has one without an image.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     for name in ("person-10/a.png", "person-2/b.png", "person-2/a.png"):
    ...         Path(root, name).parent.mkdir(exist_ok=True)
    ...         Image.new("L", (30, 20), 255).save(Path(root, name))
    ...     folder = open_folder(root)
    ...     images = folder.read(size=16)
    >>> folder.names, folder.labels.tolist(), images.shape
    (('person-2', 'person-10'), [0, 0, 1], torch.Size([3, 3, 16, 16]))
    """
    root = Path(root)
    if not root.is_dir():
        raise InvalidSetting(
            "root", "be a folder with a sub-folder of images per class", str(root), "It does not exist."
        )
    classes = sorted((entry for entry in root.iterdir() if entry.is_dir() and _visible(entry)), key=natural_order)
    if not classes:
        raise InvalidSetting("root", "hold a sub-folder of images per class", str(root), "It has no sub-folder.")
    paths: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(classes):
        images = [entry for entry in folder.iterdir() if entry.suffix.lower() in SUFFIXES and _visible(entry)]
        if not images:
            remedy = f"Its suffix would be one of {', '.join(SUFFIXES)}. Add one or remove the folder."
            raise InvalidSetting("root", "hold an image in every class", str(folder), remedy)
        paths += sorted(images, key=natural_order)
        labels += [label] * len(images)
    return ImageFolder(tuple(paths), torch.tensor(labels), tuple(folder.name for folder in classes))


def read_image(path: Path | str, *, size: int) -> Tensor:
    """Return ``(3, size, size)`` uint8: the largest central square, upright, resampled (bicubic, antialiased).

    Grey becomes RGB, 16 bits become 8, transparency lies on white; a picture of this size already keeps its pixels.

    Raises:
        InvalidSetting: for a file that is no image of 8 or 16 bits.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as root:
    ...     Image.new("RGB", (30, 20), (255, 0, 0)).save(Path(root, "red.png"))
    ...     read_image(Path(root, "red.png"), size=1).flatten().tolist()
    [255, 0, 0]
    """
    try:
        with Image.open(path) as opened:
            upright = ImageOps.exif_transpose(opened)
            square = ImageOps.fit(_rgb(upright), (size, size), Image.Resampling.BICUBIC)
    # Pillow reports a damaged file by any of these, according to its format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InvalidSetting("images", "be readable by pillow", str(path), f"It says: {error}") from error
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def natural_order(path: Path) -> tuple[list[str | int], str]:
    """Return the key that sorts names with numbers as people do.

    >>> [path.name for path in sorted((Path("b10"), Path("b9"), Path("A11")), key=natural_order)]
    ['A11', 'b9', 'b10']
    """
    parts = re.split(r"([0-9]+)", path.name.casefold())
    # Every second part is a number, so that like is compared with like.
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _visible(entry: Path) -> bool:
    return not entry.name.startswith(".")


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint32) * 255 // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"mode {image.mode}, whose range is not known")
    if image.has_transparency_data:
        colours = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colours.size, "white"), colours).convert("RGB")
    return image.convert("RGB")
