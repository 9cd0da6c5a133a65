"""Trains the prior's autoencoder to keep what is small: eyes, mouths, frames."""

import torch
from torch import Tensor, nn

from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.training.pool import Pool


def detail_weight(images: Tensor, *, gain: float = 24.0) -> Tensor:
    """``(B, 3, H, W) -> (B, 1, H, W)``: 1 on plain areas, up to ``1 + gain / 2`` where pixels stand out."""
    grey = images.mean(1, keepdim=True)
    contrast = (grey - nn.functional.avg_pool2d(grey, 7, 1, 3, count_include_pad=False)).abs()
    return 1 + gain * nn.functional.max_pool2d(contrast, 3, 1, 1).clamp(max=0.5)


def reconstruction_loss(model: UnshuffleAutoencoder, images: Tensor, generator: torch.Generator) -> Tensor:
    """Detail-weighted L1 of images in [0, 1] and of their finite differences, latents blurred by a little noise.

    The noise (0.05) and a light pull of the latents to the origin keep near-by latents near-by pictures, which is what
    a diffusion model in that space needs.
    """
    target = images * 2 - 1
    latents = model.encode(target)
    rebuilt = model.decode(latents + 0.05 * torch.randn(latents.shape, generator=generator))
    weight = detail_weight(images)
    error = rebuilt - target
    pixel = (weight * error.abs()).mean()
    edges = (weight[..., 1:] * error.diff(dim=-1).abs()).mean() + (weight[..., 1:, :] * error.diff(dim=-2).abs()).mean()
    return pixel + 0.5 * edges + 1e-3 * latents.square().mean()


def central_crops(images: Tensor, generator: torch.Generator, *, side: int = 40, grid: int = 8) -> Tensor:
    """``(B, C, H, W) -> (B, C, side, side)``: one window for all, near the middle, on the autoencoder's own grid."""
    spare = (images.shape[-1] - side) // grid
    top, left = (grid * int(torch.randint(spare + 1, (), generator=generator)) for _ in range(2))
    return images[..., top : top + side, left : left + side]


def batch_loss(
    model: UnshuffleAutoencoder, pool: Pool, batch: int, generator: torch.Generator, *, cropped: float = 0.7
) -> Tensor:
    """:func:`reconstruction_loss` of ``batch`` random pictures; of crops alone in a share ``cropped`` of the batches.

    A crop around the face costs 0.4 of a picture and holds most of what is hard; whole pictures in between keep the
    group norms used to whole pictures.
    """
    images, _ = pool.draw(batch, generator)
    if torch.rand((), generator=generator) < cropped:
        images = central_crops(images, generator)
    return reconstruction_loss(model, images, generator)


@torch.no_grad()
def standardise(model: UnshuffleAutoencoder, images: Tensor) -> None:
    """Sets ``shift_factor`` and ``scaling_factor`` from the latents of ``images (N, 3, H, W)`` in [0, 1]."""
    latents = model.encode(images * 2 - 1)
    shift, scale = float(latents.mean()), float(1 / latents.std())
    model.register_to_config(shift_factor=shift, scaling_factor=scale)  # type: ignore[no-untyped-call]


@torch.no_grad()
def psnr(model: UnshuffleAutoencoder, images: Tensor) -> float:
    """Mean over images of the peak signal-to-noise ratio in dB of the round trip, images in [0, 1]."""
    error = (model(images * 2 - 1).clamp(-1, 1) / 2 + 0.5 - images).square().mean((1, 2, 3))
    return float((-10 * error.log10()).mean())
