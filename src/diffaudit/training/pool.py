"""The picture pools that models are trained on: rendered or read once, kept as bytes, drawn at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffaudit.data.faces import FaceFactors, photographs
from diffaudit.data.rendering import render_faces
from diffaudit.errors import InvalidSetting


@dataclass(frozen=True, eq=False)
class Pool:
    """Photographs ``images (N, 3, H, W) uint8`` of ``labels (N,)``."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """``count`` random rows: images ``(count, 3, H, W)`` in [0, 1] and their row numbers ``(count,)``."""
        rows = torch.randint(len(self), (count,), generator=generator)
        return self.at(rows), rows

    def at(self, rows: Tensor) -> Tensor:
        """The images of ``rows``, as floats in [0, 1]."""
        return self.images[rows].float() / 255

    def of(self, labels: Sequence[int]) -> "Pool":
        """The photographs of these labels alone, numbered as they were."""
        rows = torch.isin(self.labels, torch.tensor(labels)).nonzero()[:, 0]
        return Pool(self.images[rows], self.labels[rows])


@dataclass(frozen=True, eq=False)
class RenderedPool(Pool):
    """A pool with the factors that made its pictures."""

    faces: FaceFactors


def rendered_pool(identities: Tensor, per_identity: int, *, seed: int, cache: Path | None = None) -> RenderedPool:
    """Photographs of ``identities (C, 23)``; kept in the file ``cache`` (NumPy) where one is given.

    Raises:
        InvalidSetting: the file holds another number of pictures.
    """
    faces, labels = photographs(identities, per_identity, seed=seed)
    if cache is not None and cache.exists():
        images = torch.from_numpy(np.load(cache))
        if len(images) != len(labels):
            raise InvalidSetting("cache", f"hold {len(labels)} pictures", len(images), f"Delete {cache}.")
        return RenderedPool(images, labels, faces)
    parts = [(render_faces(faces[i : i + 512]) * 255 + 0.5).byte() for i in range(0, len(faces), 512)]
    images = torch.cat(parts)
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_suffix(".partial.npy")
        np.save(partial, images.numpy())
        partial.replace(cache)
    return RenderedPool(images, labels, faces)


def even_rows(labels: Tensor, count: int) -> Tensor:
    """``count`` rows of every label of ``labels (N,)``, begun again where a label has fewer.

    >>> even_rows(torch.tensor([0, 1, 0, 0]), 2)
    tensor([0, 2, 1, 1])
    """
    rows = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    return torch.cat([own[torch.arange(count) % len(own)] for own in rows])
