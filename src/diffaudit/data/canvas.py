"""A picture as a stack of lit surfaces: rays through pixels, ellipsoids in rigid frames, the nearest in front.

Coordinates: x to the right of the picture, y up, z toward the camera, all in units of half the picture's width. The
camera is orthographic, and a pixel's ray meets an ellipsoid in closed form.
"""

import math
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from diffaudit.data.faces import FaceFactors

Length = Tensor | float
Triple = tuple[Length, Length, Length]


class Canvas:
    """The picture as painted so far, nearest surface in front. Lit by one direction and an ambient share."""

    def __init__(self, faces: FaceFactors, size: int) -> None:
        count = len(faces)
        line = (2 * torch.arange(size) + 1) / size - 1
        zoom = (0.94 + 0.12 * faces.scene[:, 12])[:, None, None]
        shift = (0.12 * faces.scene[:, 10:12] - 0.06)[:, :, None, None]
        self.x = ((line[None, None, :] - shift[:, 0]) / zoom).expand(count, size, size)
        self.y = ((-line[None, :, None] - shift[:, 1]) / zoom - 0.02).expand(count, size, size)
        self.pixel = 2 / size
        azimuth, elevation = torch.deg2rad(faces.illumination[:, :2, None, None]).unbind(1)
        self._light = [azimuth.sin() * elevation.cos(), elevation.sin(), azimuth.cos() * elevation.cos()]
        self._ambient = faces.illumination[:, 2, None, None]
        angle = 2 * math.pi * faces.scene[:, 6, None, None]
        ramp = (0.3 + 0.2 * (self.x * angle.cos() + self.y * angle.sin()))[:, None]
        first, second = (0.12 + 0.76 * faces.scene[:, start : start + 3, None, None] for start in (0, 3))
        self._colour = mix(first, second, ramp)
        self._depth = torch.full((count, size, size), -2.0)

    def window(self, left: float, right: float, bottom: float, top: float) -> "Canvas":
        """The same picture, of which only this part (in [-1, 1]) is looked at and painted: what saves the time."""
        size = self.x.shape[-1]
        column, row = (
            slice(int((low + 1) / 2 * size), math.ceil((high + 1) / 2 * size))
            for low, high in ((left, right), (-top, -bottom))
        )
        part = copy(self)
        part.x, part.y = self.x[..., row, column], self.y[..., row, column]
        part._depth, part._colour = self._depth[..., row, column], self._colour[..., row, column]
        return part

    def paint(self, colour: Tensor, surface: "Surface") -> None:
        """Lays ``surface`` in ``colour (N, 3, H, W)`` before what is farther away, in place."""
        visible = surface.alpha * torch.sigmoid((surface.depth - self._depth) / (0.4 * self.pixel))
        parts = (n * light for n, light in zip(surface.normal, self._light, strict=True))
        toward = sum(parts, start=torch.zeros(()))
        shade = self._ambient + (1.05 - self._ambient) * (0.8 * toward.clamp(min=0) + 0.1 * (1 + toward))
        self._colour.lerp_(colour * shade[:, None], visible[:, None])
        self._depth.copy_(torch.where(visible > 0.5, surface.depth, self._depth))

    def image(self) -> Tensor:
        return self._colour.clamp(0, 1)


class Frame:
    """A rigid frame, given by its rotation to the camera ``(N, 3, 3)``, and every pixel's ray seen from inside it."""

    def __init__(self, canvas: Canvas, rotation: Tensor) -> None:
        self._canvas = canvas
        self.paint = canvas.paint
        self._axes = rotation[:, :, :, None, None]
        self._direction = [self._axes[:, 2, axis] for axis in range(3)]
        self._origin = [self._axes[:, 0, axis] * canvas.x + self._axes[:, 1, axis] * canvas.y for axis in range(3)]

    def ellipsoid(self, centre: Triple, axes: Triple, *, taper: Length = 0.0) -> "Surface":
        """The visible side of an ellipsoid. ``taper`` narrows its lower half, by that share at its lowest point."""
        offset = [o - c for o, c in zip(self._origin, centre, strict=True)]
        narrowing: Length = 1.0
        if isinstance(taper, Tensor):
            below = (-offset[1] / axes[1]).clamp(0, 1)
            narrowing = 1 - taper * below * below * (3 - 2 * below)
        radii = (axes[0] * narrowing, axes[1], axes[2])
        ray = [d / r for d, r in zip(self._direction, radii, strict=True)]
        start = [o / r for o, r in zip(offset, radii, strict=True)]
        length = ray[0] ** 2 + ray[1] ** 2 + ray[2] ** 2
        nearest = -(start[0] * ray[0] + start[1] * ray[1] + start[2] * ray[2]) / length
        closest = [s + nearest * d for s, d in zip(start, ray, strict=True)]
        miss = closest[0] ** 2 + closest[1] ** 2 + closest[2] ** 2
        depth = nearest + ((1 - miss).clamp(min=0) / length).sqrt()
        unit = [s + depth * d for s, d in zip(start, ray, strict=True)]
        gradient = [u / r for u, r in zip(unit, radii, strict=True)]
        norm = (gradient[0] ** 2 + gradient[1] ** 2 + gradient[2] ** 2).sqrt() + 1e-6
        rows = (self._axes[:, row] for row in range(3))
        normal = [(row[:, 0] * gradient[0] + row[:, 1] * gradient[1] + row[:, 2] * gradient[2]) / norm for row in rows]
        thickness = torch.minimum(_full(radii[0], depth), _full(radii[1], depth))
        alpha = ((1 - miss.sqrt()) * thickness / self._canvas.pixel + 0.5).clamp(0, 1)
        point = [u * r + c for u, r, c in zip(unit, radii, centre, strict=True)]
        return Surface(alpha, depth, normal, point)


@dataclass(frozen=True, eq=False)
class Surface:
    """What a ray meets first: coverage, distance to the camera plane, normal (camera frame) and point (own frame)."""

    alpha: Tensor
    depth: Tensor
    normal: list[Tensor]
    point: list[Tensor]


def rotation(pose: Tensor) -> Tensor:
    """``(N, 3, 3)``: columns are the head's axes in the camera's frame; roll after pitch after yaw."""
    yaw, pitch, roll = torch.deg2rad(pose).unbind(1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=1).view(-1, 3, 3)

    turn = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    nod = matrix(one, zero, zero, zero, pitch.cos(), pitch.sin(), zero, -pitch.sin(), pitch.cos())
    lean = matrix(roll.cos(), roll.sin(), zero, -roll.sin(), roll.cos(), zero, zero, zero, one)
    return lean @ nod @ turn


def mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """``first`` where ``share`` is 0, ``second`` where it is 1."""
    return first + (second - first) * share


def _full(length: Length, like: Tensor) -> Tensor:
    return length.expand_as(like) if isinstance(length, Tensor) else torch.full_like(like, length)
