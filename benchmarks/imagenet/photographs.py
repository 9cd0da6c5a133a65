"""The photographs of the ImageNet benchmark: where they lie, and the views of them that the prior is trained on."""

from pathlib import Path

import torch
from torch import Tensor, nn

from diffaudit.data.labelled import Labelled, read_labelled
from diffaudit.training import bench

SIZE = 128
MARGIN = 1.25
"""Crops are cut from pictures this much larger, so that the smallest shows 64 % of the picture."""
REPOSITORY = Path(__file__).parents[2]


def data_folder(given: Path | None = None) -> Path:
    """The data's folder: ``given``, else ``$DIFFAUDIT_SHARED_DATA``, else ``../shared/data`` beside the repository."""
    return bench.data_folder(given, REPOSITORY)


def photographs(data: Path, *, size: int = SIZE) -> Labelled:
    """All labelled photographs, cut to squares exactly as the audit cuts them, and the names of all classes."""
    folder = data / "imagenet"
    return read_labelled(folder, folder / "labels.csv", folder / "classes.csv", size=size)


def views(data: Path, count: int, *, seed: int) -> Tensor:
    """``(N * count, 3, SIZE, SIZE) uint8``: ``count`` views of each photograph, one photograph after another.

    The first is the photograph as it is attacked, the second its mirror image, the others are random crops of it,
    mirrored at random.
    """
    plain = photographs(data).images
    large = photographs(data, size=round(MARGIN * SIZE)).images
    generator = torch.Generator().manual_seed(seed)
    return torch.cat([_views_of(*pair, count, generator) for pair in zip(plain, large, strict=True)])


def _views_of(plain: Tensor, large: Tensor, count: int, generator: torch.Generator) -> Tensor:
    found = [plain, plain.flip(-1)][:count]
    while len(found) < count:
        crop = _crop(large, generator)
        found.append(crop.flip(-1) if bool(torch.rand((), generator=generator) < 0.5) else crop)
    return torch.stack(found)


def _crop(large: Tensor, generator: torch.Generator) -> Tensor:
    """A square of random side and place, brought to ``SIZE``."""
    full = large.shape[-1]
    side = int(torch.randint(SIZE, full + 1, (), generator=generator))
    top, left = (int(torch.randint(full - side + 1, (), generator=generator)) for _ in range(2))
    window = large[None, :, top : top + side, left : left + side].float()
    resized = nn.functional.interpolate(window, (SIZE, SIZE), mode="bicubic", antialias=True, align_corners=False)
    return resized[0].round().clamp(0, 255).byte()
