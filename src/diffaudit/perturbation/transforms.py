"""Expectation over transformations: random views of an image that every surrogate model sees alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from kornia.color import rgb_to_yuv, yuv_to_rgb
from kornia.geometry.transform import get_rotation_matrix2d, warp_affine
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation.plans import ViewPlan


def turned_hue(images: Tensor, turns: Tensor) -> Tensor:
    r"""Return the images with their colours turned around grey by ``turns`` of the colour circle.

    .. math:: (U, V) \mapsto R(2\pi t_b)\,(U, V), \qquad Y \mapsto Y

    Shapes ``(B, 3, H, W), (B,) -> (B, 3, H, W)``; the range is not kept: strong colours may leave [0, 1]. Linear in the
    image, so the gradient is right everywhere. The usual way through HSV has no derivative at grey, and there the one
    that autograd gives is a third of the true slope.

    >>> turned_hue(torch.full((1, 3, 1, 1), 0.5), torch.tensor([0.05])).flatten()
    tensor([0.5000, 0.5000, 0.5000])
    """
    yuv = rgb_to_yuv(images)
    angles = (2 * math.pi * turns)[:, None, None]
    u, v = yuv[:, 1], yuv[:, 2]
    turned = torch.stack([yuv[:, 0], angles.cos() * u - angles.sin() * v, angles.sin() * u + angles.cos() * v], dim=1)
    return yuv_to_rgb(turned)


def turned_and_scaled(images: Tensor, degrees: Tensor, scales: Tensor) -> Tensor:
    """Return the images turned by ``degrees`` counter-clockwise and enlarged by ``scales`` about their centre.

    Shapes ``(B, 3, H, W), (B,), (B,) -> (B, 3, H, W)``; bilinear, edges repeated.

    >>> turned_and_scaled(torch.eye(3).expand(1, 3, 3, 3), torch.tensor([90.0]), torch.ones(1))[0, 0].round().abs()
    tensor([[0., 0., 1.],
            [0., 1., 0.],
            [1., 0., 0.]])
    """
    height, width = images.shape[-2:]
    centre = images.new_tensor([(width - 1) / 2, (height - 1) / 2]).expand(len(images), 2)
    matrix = get_rotation_matrix2d(centre, degrees, scales[:, None].expand(-1, 2))
    return warp_affine(images, matrix, (height, width), padding_mode="border", align_corners=True)


@dataclass(frozen=True, eq=False)
class View:
    """One drawn transformation of ``B`` images, each image's own; a function of images ``(B, 3, H, W)``.

    Attributes:
        degrees: ``(B,)`` turned by.
        scales: ``(B,)`` enlarged by.
        hues: ``(B,)`` turns of the colour circle.
        noise: ``(B, 3, H, W)`` added.
    """

    degrees: Tensor
    scales: Tensor
    hues: Tensor
    noise: Tensor

    def __call__(self, images: Tensor) -> Tensor:
        """The images as seen here, differentiably and not clamped."""
        moved = turned_and_scaled(images, self.degrees, self.scales)
        return turned_hue(moved, self.hues) + self.noise


def draw_views(
    images: Tensor,
    count: int,
    generator: torch.Generator,
    *,
    rotation: float = 10.0,
    scale: tuple[float, float] = (0.9, 1.1),
    hue: float = 0.05,
    noise: float = 0.02,
) -> tuple[View, ...]:
    """Return ``count`` views of images ``(B, 3, H, W)``, drawn once and then the same for every model.

    Common random numbers: models that look at the same views differ by the models alone, not by the draw, and an
    ensemble rule compares what it should. Angles, scales and hues are uniform, the noise is Gaussian.

    Paper: Athalye, Engstrom, Ilyas, Kwok, "Synthesizing Robust Adversarial Examples" (2017, arXiv:1707.07397).

    Args:
        images: for their shape, precision and device.
        count: of views.
        generator: of the draws; used on its own device.
        rotation: largest angle either way, in degrees.
        scale: smallest and largest enlargement.
        hue: largest turn of the colour circle either way, as a share of it.
        noise: standard deviation, for images in [0, 1].

    Raises:
        InvalidSetting: for a count below 1, a rotation outside [0, 180], scales that are not above 0 and in order, a
            hue outside [0, 0.5] and a negative noise.

    >>> picture = torch.full((2, 3, 8, 8), 0.5)
    >>> views = draw_views(picture, 3, torch.Generator().manual_seed(0), noise=0.0)
    >>> [float((view(picture) - picture).abs().max().round(decimals=5)) for view in views]
    [0.0, 0.0, 0.0]
    """
    smallest, largest = scale
    if count < 1:
        raise InvalidSetting("count", "be a positive integer", count)
    if not 0 <= rotation <= 180:
        raise InvalidSetting("rotation", "be an angle in degrees, in [0, 180]", rotation)
    if not 0 < smallest <= largest < math.inf:
        raise InvalidSetting("scale", "be two finite numbers above 0, the smaller first", scale)
    if not 0 <= hue <= 0.5:
        raise InvalidSetting("hue", "be a share of the colour circle, in [0, 0.5]", hue)
    if not 0 <= noise < math.inf:
        raise InvalidSetting("noise", "be a finite number of at least 0", noise)
    views = []
    for _ in range(count):
        signed = 2 * torch.rand(3, len(images), generator=generator, device=generator.device).to(images) - 1
        speckle = torch.randn(images.shape, generator=generator, device=generator.device).to(images)
        middle, reach = (largest + smallest) / 2, (largest - smallest) / 2
        views.append(View(rotation * signed[0], middle + reach * signed[1], hue * signed[2], noise * speckle))
    return tuple(views)


def views_of(image: Tensor, plan: ViewPlan, numbers: Sequence[int], seed: int, iteration: int) -> tuple[View, ...]:
    """The views of one iteration under ``plan``, drawn picture by picture, so that none depends on its batch.

    Args:
        image: ``(B, 3, H, W)`` in [0, 1].
        plan: how many, how strong, and every how many iterations; in the others there are none.
        numbers: of the ``B`` pictures, by which and by ``seed`` and ``iteration`` their views are drawn.
        seed: of the run.
        iteration: from 0.
    """
    if plan.samples == 0 or not due(iteration, plan.every):
        return ()
    generator = torch.Generator()
    rows = [
        draw_views(
            one,
            plan.samples,
            generator.manual_seed((seed * 1_000_003 + number) * 1_009 + iteration),
            rotation=plan.rotation,
            scale=plan.scale,
            hue=plan.hue,
            noise=plan.noise,
        )
        for number, one in zip(numbers, image.detach().split(1), strict=True)
    ]
    return tuple(
        View(*(torch.cat([getattr(view, name) for view in same]) for name in ("degrees", "scales", "hues", "noise")))
        for same in zip(*rows, strict=True)
    )


def due(iteration: int, every: int) -> bool:
    """Return whether views are drawn at ``iteration``: at the first one, 0, and every ``every``-th after it.

    Raises:
        InvalidSetting: for ``every`` below 1.

    >>> [due(iteration, 2) for iteration in range(4)]
    [True, False, True, False]
    """
    if every < 1:
        raise InvalidSetting("every", "be a positive integer", every, "Draw no views to look at the images alone.")
    return iteration % every == 0
