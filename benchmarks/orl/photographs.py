"""The photographs of the ORL benchmark: where they lie, who is private, and how few public people become many."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from diffaudit.data.folders import ImageFolder, open_folder
from diffaudit.data.splits import check_disjoint, halves, split_identities
from diffaudit.training import bench
from diffaudit.training.pool import Pool

SIZE = 64
PRIVATE, SEED = 20, 0
"""Twenty of the 38 ORL identities are private; ``split_identities`` draws them with this seed."""
REPOSITORY = Path(__file__).parents[2]


def data_folder(given: Path | None = None) -> Path:
    """The data's folder: ``given``, else ``$DIFFAUDIT_SHARED_DATA``, else ``../shared/data`` beside the repository."""
    return bench.data_folder(given, REPOSITORY)


def private_names(data: Path) -> list[str]:
    """The private ORL identities, in natural order: the target's classes."""
    return split_identities(open_folder(data / "faces_aligned" / "orl").names, PRIVATE, seed=SEED)[0]


def private_halves(data: Path) -> tuple[ImageFolder, ImageFolder]:
    """The private people's photographs: the half that trains the classifiers, and the half that the audit refers to."""
    folder = open_folder(data / "faces_aligned" / "orl")
    return halves(folder.only(private_names(data)), seed=SEED)


def public_folders(data: Path) -> list[ImageFolder]:
    """The other ORL identities, Yale and LFW-10.

    Raises:
        ThreatModelViolation: a public folder shows a private person or holds a private file.
    """
    orl = open_folder(data / "faces_aligned" / "orl")
    private = orl.only(private_names(data))
    public = [orl.only([name for name in orl.names if name not in private.names])]
    public += [open_folder(data / "faces_aligned" / name) for name in ("yale", "lfw10")]
    for folder in public:
        check_disjoint(private, folder)
    return public


def read(folders: Sequence[ImageFolder]) -> Pool:
    """All photographs of several folders, people numbered through."""
    images, labels, first = [], [], 0
    for folder in folders:
        images.append(folder.read(size=SIZE, dtype=torch.uint8))
        labels.append(folder.labels + first)
        first += len(folder.names)
    return Pool(torch.cat(images), torch.cat(labels))


def grey(images: Tensor) -> Tensor:
    """Luminance of ``(B, 3, H, W)`` in all three channels: ORL and Yale know no colour."""
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images * weights).sum(1, keepdim=True).expand_as(images)


def imagined_people(photographs: Pool, count: int, views: int, *, seed: int, warp: float = 0.07) -> Tensor:
    """``(count * views, 3, H, W) uint8``: grey pictures of ``count`` people made of the real ones, ``views`` of each.

    Some forty faces are far too few to learn what an identity embedding means: a prior would learn forty names. A third
    of these people are the real ones; a third have their faces bent by a smooth field of their own (a few percent of
    the side: other jaws, noses, eye distances); a third are also blended with another person, photograph by photograph
    with the one most alike. The photographs are aligned, so that eyes fall on eyes. Each view is moved, turned, zoomed,
    lit and perhaps mirrored. What such a face is *called* is the encoder's answer to the picture, computed afterwards.
    """
    generator = torch.Generator().manual_seed(seed)
    people = int(photographs.labels.max()) + 1
    parts = []
    for person in range(count):
        own = photographs.of([person % people])
        pictures = grey(own.at(torch.randint(len(own), (views,), generator=generator)))
        kind = person // people % 3
        field = torch.zeros(1, 2, SIZE, SIZE)
        if kind > 0:
            field = _smooth_field(warp, generator)
        if kind == 2:
            other = (person + 1 + int(torch.randint(people - 1, (), generator=generator))) % people
            share = 0.35 + 0.15 * float(torch.rand((), generator=generator))
            pictures = torch.lerp(pictures, _most_alike(pictures, grey(_all(photographs.of([other])))), share)
        parts.append((_views(pictures, field, generator) * 255).round().byte())
    return torch.cat(parts)


def _all(photographs: Pool) -> Tensor:
    return photographs.at(torch.arange(len(photographs)))


def _most_alike(pictures: Tensor, choice: Tensor) -> Tensor:
    """For each picture the one of ``choice`` whose coarse luminance differs least: about the same pose and light."""
    coarse = [nn.functional.adaptive_avg_pool2d(images, 8).flatten(1) for images in (pictures, choice)]
    normal = [(values - values.mean(1, keepdim=True)) / values.std(1, keepdim=True) for values in coarse]
    return choice[torch.cdist(*normal).argmin(1)]


def _smooth_field(strength: float, generator: torch.Generator) -> Tensor:
    """``(1, 2, H, W)`` displacement in units of half the side, smooth over a fifth of it."""
    field = strength * torch.randn(1, 2, 5, 5, generator=generator)
    return nn.functional.interpolate(field, (SIZE, SIZE), mode="bicubic", align_corners=True)


def _views(pictures: Tensor, field: Tensor, generator: torch.Generator) -> Tensor:
    """Bends by ``field``, which is the person's, then moves, turns, zooms, lights and mirrors each view its own way."""
    count = len(pictures)
    identity = torch.eye(2, 3).expand(count, -1, -1)
    grid = nn.functional.affine_grid(identity, list(pictures.shape), align_corners=False)
    bent = nn.functional.grid_sample(
        pictures, grid + field.permute(0, 2, 3, 1), padding_mode="border", align_corners=False
    )
    signed = 2 * torch.rand(count, 7, generator=generator) - 1
    zoom, angle = 1 + 0.05 * signed[:, 0], 0.06 * signed[:, 1]
    mirror = torch.where(signed[:, 2] < 0, -1.0, 1.0)
    rows = [zoom * angle.cos() * mirror, -zoom * angle.sin(), 0.06 * signed[:, 3]]
    rows += [zoom * angle.sin() * mirror, zoom * angle.cos(), 0.06 * signed[:, 4]]
    grid = nn.functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(pictures.shape), align_corners=False)
    views = nn.functional.grid_sample(bent, grid, padding_mode="border", align_corners=False)
    gain, offset = (1 + 0.15 * signed[:, 5])[:, None, None, None], (0.08 * signed[:, 6])[:, None, None, None]
    return (views * gain + offset).clamp(0, 1)
