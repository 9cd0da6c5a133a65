"""Defences that change a picture before a model sees it: does an attack survive them?

Images are ``(B, 3, H, W)`` in [0, 1] before and after. Randomness is drawn image by image from the generator passed, so
that an image's draw does not depend on how a judge cuts its batches.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior
from diffaudit.models.sampler import ddim


@dataclass(frozen=True)
class Defence:
    """A named change of pictures, ``apply(images, generator) -> images``, judged ``repeats`` times.

    Raises:
        InvalidSetting: ``repeats`` below 1.
    """

    name: str
    apply: Callable[[Tensor, torch.Generator], Tensor]
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise InvalidSetting(f"{self.name}.repeats", "be a positive integer", self.repeats)


def jpeg(images: Tensor, *, quality: int = 75) -> Tensor:
    """Return the pictures after a round trip through a JPEG file of this ``quality``, 1 to 95.

    Shapes ``(B, 3, H, W) -> (B, 3, H, W)``. Pillow writes and reads the file, chroma at half resolution.

    Paper: Dziugaite, Ghahramani, Roy, "A study of the effect of JPG compression on adversarial images" (2016,
    arXiv:1608.00853).

    Raises:
        InvalidSetting: for another quality.

    >>> jpeg(torch.full((1, 3, 8, 8), 0.2)).unique()
    tensor([0.2000])
    """
    if not 1 <= quality <= 95:
        raise InvalidSetting("quality", "be between 1 and 95", quality, "75 is usual.")
    parts = []
    for image in images:
        pixels = (255 * image).round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().cpu().numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=quality)
        with Image.open(file) as reopened:
            parts.append(torch.from_numpy(np.array(reopened)).permute(2, 0, 1))
    return (torch.stack(parts).to(images.dtype) / 255).to(images.device)


def reduced_depth(images: Tensor, *, bits: int = 4) -> Tensor:
    r"""Return the pictures with every value rounded to one of :math:`2^{bits}`, evenly spaced.

    .. math:: \mathrm{round}(x (2^{bits} - 1)) / (2^{bits} - 1)

    Shapes ``(B, 3, H, W) -> (B, 3, H, W)``.

    Paper: Xu, Evans, Qi, "Feature Squeezing: Detecting Adversarial Examples in Deep Neural Networks" (2017,
    arXiv:1704.01155).

    Raises:
        InvalidSetting: for ``bits`` outside 1 to 8.

    >>> reduced_depth(torch.tensor([0.1, 0.3, 0.9]).view(1, 3, 1, 1), bits=1).flatten()
    tensor([0., 0., 1.])
    """
    if not 1 <= bits <= 8:
        raise InvalidSetting("bits", "be between 1 and 8", bits, "4 is usual.")
    levels = float(2**bits - 1)
    return (images * levels).round() / levels


def resized_and_padded(images: Tensor, generator: torch.Generator, *, least: float = 0.9) -> Tensor:
    """Return each picture shrunk to a random side and placed at random on black.

    Shapes ``(B, 3, H, W) -> (B, 3, H, W)``. The share of the side is uniform over whole pixels from ``least`` to 1. As
    published, the picture *grows* by up to 11 % and is padded to a larger side; here the side stays, so that models of
    a fixed size take part, and the ratio of picture to padding is the published one.

    Paper: Xie, Wang, Zhang, Ren, Yuille, "Mitigating Adversarial Effects Through Randomization" (2017,
    arXiv:1711.01991).

    Raises:
        InvalidSetting: for ``least`` outside (0, 1].
    """
    if not 0 < least <= 1:
        raise InvalidSetting("least", "be in (0, 1]", least, "0.9 is usual.")
    height, width = images.shape[2:]
    parts = []
    for image in images:
        side = _drawn(round(least * min(height, width)), min(height, width), generator) / min(height, width)
        rows, columns = max(1, round(side * height)), max(1, round(side * width))
        small = nn.functional.interpolate(image[None], (rows, columns), mode="bilinear", antialias=True)
        top, left = _drawn(0, height - rows, generator), _drawn(0, width - columns, generator)
        parts.append(nn.functional.pad(small, (left, width - columns - left, top, height - rows - top)))
    return torch.cat(parts).clamp(0, 1)


@torch.no_grad()
def purified(
    prior: DiffusionPrior,
    images: Tensor,
    condition: Condition,
    *,
    strength: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Return the pictures after noise of ``strength`` in the latent and ``steps`` of DDIM back to a clean one.

    Shapes ``(B, 3, H, W) -> (B, 3, H, W)``; ``condition`` has one row, for all pictures, or one each. A small noise
    drowns what an attack wrote and leaves what the picture shows; the prior then takes the noise away, without
    guidance.

    Paper: Nie, Guo, Huang, Xiao, Vahdat, Anandkumar, "Diffusion Models for Adversarial Purification" (2022,
    arXiv:2205.07460), whose strength is 0.1 to 0.15 and whose solver is stochastic.

    Raises:
        InvalidSetting: ``steps`` below 1 or ``strength`` outside (0, 1].
    """
    latents = prior.encode(images)
    # One draw an image: a batch cut elsewhere gets the same noise.
    noise = torch.stack([torch.randn(latents.shape[1:], generator=generator) for _ in images]).to(latents)
    rows = condition if len(condition) == len(images) else condition[torch.zeros(len(images), dtype=torch.long)]
    clean = ddim(prior, latents, noise, rows, None, steps=steps, strength=strength, guidance_scale=1.0)
    return prior.decode(clean).clamp(0, 1)


def jpeg_defence(quality: int = 75) -> Defence:
    """:func:`jpeg` under the name ``jpeg-<quality>``."""
    return Defence(f"jpeg-{quality}", lambda images, _: jpeg(images, quality=quality))


def depth_defence(bits: int = 4) -> Defence:
    """:func:`reduced_depth` under the name ``depth-<bits>``."""
    return Defence(f"depth-{bits}", lambda images, _: reduced_depth(images, bits=bits))


def resize_defence(least: float = 0.9, repeats: int = 10) -> Defence:
    """:func:`resized_and_padded` under the name ``resize-pad-<least>``."""
    return Defence(f"resize-pad-{least:g}", partial(resized_and_padded, least=least), repeats)


def purification_defence(
    prior: DiffusionPrior, condition: Condition, *, strength: float = 0.1, steps: int = 5, repeats: int = 3
) -> Defence:
    """:func:`purified` under the name ``purification-<strength>-<steps>``; ``condition`` has one row."""

    def apply(images: Tensor, generator: torch.Generator) -> Tensor:
        return purified(prior, images, condition, strength=strength, steps=steps, generator=generator)

    return Defence(f"purification-{strength:g}-{steps}", apply, repeats)


def _drawn(low: int, high: int, generator: torch.Generator) -> int:
    """An integer from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
