"""Renders :class:`~diffaudit.data.faces.FaceFactors`: an orthographic camera before a head made of a few ellipsoids.

Everything is elementwise on ``(N, H, W)`` tensors, so an image does not depend on its batch-mates. Coordinates: x to
the right of the picture, y up, z toward the camera, all in units of half the picture's width. A pixel's ray meets an
ellipsoid in closed form; eyes, brows, mouth, beard and glasses are soft-edged shapes painted on the face's surface in
the head's own frame, so that they turn, foreshorten and vanish with it.
"""

import math
from copy import copy
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from diffaudit.data.faces import IDENTITY_FACTORS, FaceFactors

CHUNK_PIXELS = 64 * 64 * 32

Length = Tensor | float
_Triple = tuple[Length, Length, Length]


def render_faces(faces: FaceFactors, *, size: int = 64) -> Tensor:
    """``(N, 3, size, size)`` float images in [0, 1].

    >>> from diffaudit.data.faces import sample_faces, sample_identities
    >>> images = render_faces(sample_faces(sample_identities(2, seed=0), seed=1))
    >>> images.shape, bool((images >= 0).all() and (images <= 1).all())
    (torch.Size([2, 3, 64, 64]), True)
    """
    if size < 16:
        raise ValueError(f"`size` should be at least 16 pixels. Found {size}.")
    chunk = max(1, CHUNK_PIXELS // size**2)
    images = [_render(faces[start : start + chunk], size) for start in range(0, len(faces), chunk)]
    return torch.cat(images) if images else torch.empty(0, 3, size, size)


def hair_colour(darkness: Tensor, redness: Tensor) -> Tensor:
    """``(N,), (N,) -> (N, 3)`` RGB: grey and gold where hair is light, black and auburn where it is dark.

    >>> hair_colour(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    tensor([[0.8000, 0.7800, 0.7400],
            [0.2400, 0.0900, 0.0500]])
    """
    light = _mix(_rgb(0.80, 0.78, 0.74), _rgb(0.93, 0.66, 0.22), redness[:, None])
    middle = _mix(_rgb(0.42, 0.36, 0.30), _rgb(0.70, 0.25, 0.06), redness[:, None])
    dark = _mix(_rgb(0.06, 0.06, 0.07), _rgb(0.24, 0.09, 0.05), redness[:, None])
    lower = _mix(light, middle, (2 * darkness[:, None]).clamp(max=1))
    return _mix(lower, dark, (2 * darkness[:, None] - 1).clamp(min=0))


def skin_colour(tone: Tensor, warmth: Tensor) -> Tensor:
    """``(N,), (N,) -> (N, 3)`` RGB, from dark (tone 0) to fair (tone 1).

    >>> skin_colour(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    tensor([[0.2600, 0.1900, 0.1500],
            [1.0000, 0.7800, 0.6600]])
    """
    dark = _mix(_rgb(0.26, 0.19, 0.15), _rgb(0.36, 0.19, 0.11), warmth[:, None])
    fair = _mix(_rgb(0.93, 0.84, 0.78), _rgb(1.00, 0.78, 0.66), warmth[:, None])
    return _mix(dark, fair, tone[:, None])


def _render(faces: FaceFactors, size: int) -> Tensor:
    person = _Person(faces)
    canvas = _Canvas(faces, size)
    turned = _rotation(faces.pose)
    half_turned = _rotation(faces.pose * torch.tensor([0.4, 0.0, 0.0]))

    behind = _Frame(canvas.window(-0.95, 0.95, -1, 0.6), turned)
    fall = behind.ellipsoid((0, person.fall_y, -0.18), (person.fall_width, person.fall_height, 0.3))
    behind.paint(person.hair * 0.9, fall)
    body = _Frame(canvas.window(-1, 1, -1, -0.2), half_turned)
    body.paint(person.skin * 0.85, body.ellipsoid((0, -0.72, -0.1), (0.2, 0.5, 0.2)))
    body.paint(person.cloth, body.ellipsoid((0, -1.18, -0.1), (0.76, 0.42, 0.36)))
    for side in (-1, 1):
        left, right = sorted((side * 0.15, side * 0.8))
        ear = _Frame(canvas.window(left, right, -0.45, 0.45), turned)
        ear.paint(person.skin * 0.93, ear.ellipsoid((side * person.width * 0.97, 0, -0.05), (0.05, person.ear, 0.09)))

    head = _Frame(canvas.window(-0.66, 0.66, -0.82, 0.85), turned)
    skull = head.ellipsoid((0, 0, 0), (person.width, person.height, 0.5), taper=person.taper)
    head.paint(_face(person, faces, skull.point, canvas.pixel), skull)
    middle = _Frame(canvas.window(-0.6, 0.6, -0.6, 0.4), turned)
    nose = middle.ellipsoid((0, person.nose_y, 0.44), (person.nose_width, person.nose_length, 0.14))
    middle.paint(person.skin * _ink(0.97, 0.92, 0.91), nose)
    if bool((person.glasses > 0).any()):
        frames = _glasses(person, skull, canvas.pixel)
        head.paint(_ink(0.08, 0.08, 0.09)[None], replace(skull, alpha=frames, depth=skull.depth + 0.2))

    above = _Frame(canvas.window(-0.85, 0.85, -0.85, 0.97), turned)
    shell = (person.width + person.volume, person.height + person.volume, 0.5 + person.volume)
    scalp = above.ellipsoid((0, 0.03, -0.02), shell, taper=person.taper)
    cover = _hair_cover(person, scalp.point, canvas.pixel)
    above.paint(person.hair, replace(scalp, alpha=scalp.alpha * cover, depth=scalp.depth + 0.1))
    return canvas.image()


class _Person:
    """The factors of identity as lengths, heights and colours, each ``(N, 1, 1)`` (colours ``(N, 3, 1, 1)``)."""

    def __init__(self, faces: FaceFactors) -> None:
        factor = dict(zip(IDENTITY_FACTORS, faces.identity.unbind(1), strict=True))

        def between(name: str, low: float, high: float) -> Tensor:
            return (low + (high - low) * factor[name])[:, None, None]

        self.width = between("head_width", 0.40, 0.53)
        self.height = between("head_height", 0.53, 0.67)
        self.taper = between("jaw_width", 0.42, 0.02)
        self.ear = between("ear_size", 0.05, 0.15)
        self.skin = skin_colour(factor["skin_tone"], factor["skin_warmth"])[:, :, None, None]
        self.hair = hair_colour(factor["hair_darkness"], factor["hair_redness"])[:, :, None, None]
        self.brow_colour = self.hair * 0.55
        self.volume = between("hair_volume", 0.02, 0.13)
        self.hairline = self.height * between("hairline", 0.45, 0.82)
        length = between("hair_length", 0.0, 1.0)
        self.length = length
        bottom = -0.15 - 0.80 * length
        self.fall_y = (0.35 + bottom) / 2
        self.fall_height = (0.35 - bottom) / 2
        self.fall_width = self.width * 0.80 + self.volume * (0.3 + 0.9 * length)
        self.eye_x = between("eye_spacing", 0.14, 0.23)
        self.eye_y = between("eye_height", -0.03, 0.15)
        self.eye = between("eye_size", 0.055, 0.105)
        hue = factor["eye_hue"][:, None]
        blue_to_green = _mix(_rgb(0.20, 0.42, 0.80), _rgb(0.22, 0.58, 0.30), (2 * hue).clamp(max=1))
        self.iris = _mix(blue_to_green, _rgb(0.33, 0.18, 0.08), (2 * hue - 1).clamp(min=0))[:, :, None, None]
        self.brow = between("brow_thickness", 0.008, 0.036)
        self.brow_rise = between("brow_height", 0.02, 0.09)
        self.nose_length = between("nose_length", 0.09, 0.19)
        self.nose_width = between("nose_width", 0.045, 0.105)
        self.nose_y = self.eye_y - 0.04 - self.nose_length * 0.85
        self.mouth_x = between("mouth_width", 0.10, 0.22)
        self.lip = between("lip_fullness", 0.012, 0.048)
        self.mouth_y = self.nose_y - self.nose_length - 0.07
        self.lip_colour = self.skin * _ink(0.86, 0.50, 0.50) + _ink(0.10, 0.0, 0.01)
        self.beard = factor["beard"][:, None, None]
        self.glasses = factor["glasses"][:, None, None]
        self.cloth = (0.15 + 0.7 * faces.scene[:, 7:10])[:, :, None, None]


class _Canvas:
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
        self._colour = _mix(first, second, ramp)
        self._depth = torch.full((count, size, size), -2.0)

    def window(self, left: float, right: float, bottom: float, top: float) -> "_Canvas":
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

    def paint(self, colour: Tensor, surface: "_Surface") -> None:
        """Lays ``surface`` in ``colour (N, 3, H, W)`` before what is farther away, in place."""
        visible = surface.alpha * torch.sigmoid((surface.depth - self._depth) / (0.4 * self.pixel))
        parts = (n * light for n, light in zip(surface.normal, self._light, strict=True))
        toward = sum(parts, start=torch.zeros(()))
        shade = self._ambient + (1.05 - self._ambient) * (0.8 * toward.clamp(min=0) + 0.1 * (1 + toward))
        self._colour.lerp_(colour * shade[:, None], visible[:, None])
        self._depth.copy_(torch.where(visible > 0.5, surface.depth, self._depth))

    def image(self) -> Tensor:
        return self._colour.clamp(0, 1)


class _Frame:
    """A rigid frame, given by its rotation to the camera ``(N, 3, 3)``, and every pixel's ray seen from inside it."""

    def __init__(self, canvas: _Canvas, rotation: Tensor) -> None:
        self._canvas = canvas
        self.paint = canvas.paint
        self._axes = rotation[:, :, :, None, None]
        self._direction = [self._axes[:, 2, axis] for axis in range(3)]
        self._origin = [self._axes[:, 0, axis] * canvas.x + self._axes[:, 1, axis] * canvas.y for axis in range(3)]

    def ellipsoid(self, centre: _Triple, axes: _Triple, *, taper: Length = 0.0) -> "_Surface":
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
        return _Surface(alpha, depth, normal, point)


@dataclass(frozen=True, eq=False)
class _Surface:
    """What a ray meets first: coverage, distance to the camera plane, normal (camera frame) and point (own frame)."""

    alpha: Tensor
    depth: Tensor
    normal: list[Tensor]
    point: list[Tensor]


def _face(person: _Person, faces: FaceFactors, point: list[Tensor], pixel: float) -> Tensor:
    """The colour ``(N, 3, H, W)`` of the head's surface: skin and what is painted on it."""
    x, y, z = point
    smile, opening, blink, raised = (column[:, None, None] for column in faces.expression.unbind(1))
    front = (z / 0.15).clamp(0, 1)
    colour = person.skin.expand(-1, -1, *x.shape[1:])

    cheek = (person.mouth_y + 0.12 - y) / 0.08 - 0.3 * (1 - (x / person.width).abs() * 2.2).clamp(min=0)
    beard = cheek.clamp(0, 1) * person.beard.sign() * (0.35 + 0.6 * person.beard)
    colour = _over(colour, person.hair * 0.9, beard * front)

    outer = x.abs()
    eye_x, eye_y = (outer - person.eye_x), (y - person.eye_y)
    height = person.eye * 0.72 * (1 - blink)
    lid = _ellipse(eye_x, eye_y - 0.012, person.eye * 1.12, height + 0.022, pixel)
    white = _ellipse(eye_x, eye_y, person.eye, height.clamp(min=1e-3), pixel) * (blink < 0.9)
    iris = _ellipse(eye_x, eye_y, person.eye * 0.52, person.eye * 0.52, pixel)
    pupil = _ellipse(eye_x, eye_y, person.eye * 0.24, person.eye * 0.24, pixel)
    colour = _over(colour, person.skin * 0.42, lid * front)
    colour = _over(colour, _ink(0.97, 0.97, 0.97), white * front)
    colour = _over(colour, person.iris, white * iris * front)
    colour = _over(colour, _ink(0.03, 0.03, 0.03), white * pupil * front)

    rise = person.eye * 0.85 + person.brow_rise + 0.03 * raised
    slope = -0.16 * raised
    brow_y = eye_y - rise - slope * (outer - person.eye_x) + 2.2 * eye_x**2
    brow = _ellipse(eye_x, brow_y, person.eye * 1.45, person.brow, pixel)
    colour = _over(colour, person.brow_colour, brow * front)

    across = x / person.mouth_x
    line = person.mouth_y + 0.055 * smile * (across**2 - 0.4)
    gap = 0.075 * opening
    fullness = (1 - across**2).clamp(min=0)
    lips = _band(y - line + gap / 2, (person.lip + gap / 2) * fullness.sqrt() + 0.004, pixel) * (across.abs() < 1)
    inner = _band(y - line + gap / 2, gap / 2 * fullness - 0.5 * pixel * (fullness <= 0), pixel) * (opening > 0.02)
    crease = _band(y - line, torch.full_like(y, 0.008), pixel) * (across.abs() < 1) * (opening <= 0.02)
    colour = _over(colour, person.lip_colour, lips * front)
    colour = _over(colour, _ink(0.20, 0.04, 0.05), inner * front)
    return _over(colour, person.lip_colour * 0.45, crease * front * 0.8)


def _glasses(person: _Person, surface: _Surface, pixel: float) -> Tensor:
    """Coverage ``(N, H, W)`` of the frames: two rings and a bridge, drawn just before the face."""
    x, y, z = surface.point
    radius = person.eye + 0.02 + 0.045 * person.glasses
    distance = ((x.abs() - person.eye_x) ** 2 + (y - person.eye_y) ** 2).sqrt()
    ring = _band(distance - radius, torch.full_like(distance, 0.016), pixel)
    bridge = _band(y - person.eye_y - 0.01, torch.full_like(y, 0.014), pixel) * (x.abs() < person.eye_x - radius)
    return torch.maximum(ring, bridge) * (person.glasses > 0) * (z > 0) * surface.alpha


def _hair_cover(person: _Person, point: list[Tensor], pixel: float) -> Tensor:
    """Coverage ``(N, H, W)`` of the scalp's shell: above the hairline, behind the temples, down the sides if long."""
    x, y, z = point
    side = (x / person.width).abs()
    fringe = person.hairline - 0.16 * side**2
    nape = torch.minimum(-0.04 - z, y + 0.18 + 0.3 * person.length)
    sides = torch.minimum(0.5 * (side - 0.86), y - 0.12 + 0.75 * person.length)
    cover = torch.maximum(torch.maximum(y - fringe, nape), sides)
    return (cover / pixel + 0.5).clamp(0, 1)


def _ellipse(x: Tensor, y: Tensor, width: Tensor, height: Tensor, pixel: float) -> Tensor:
    """Soft coverage of an ellipse around the origin, from its signed distance to first order."""
    radial = ((x / width) ** 2 + (y / height) ** 2 + 1e-9).sqrt()
    gradient = ((x / width**2) ** 2 + (y / height**2) ** 2 + 1e-9).sqrt() / radial
    return ((1 - radial) / gradient.clamp(min=1e-3) / pixel + 0.5).clamp(0, 1)


def _band(distance: Tensor, half_width: Tensor, pixel: float) -> Tensor:
    """Soft coverage of ``|distance| < half_width``."""
    return ((half_width - distance.abs()) / pixel + 0.5).clamp(0, 1)


def _over(below: Tensor, colour: Tensor, alpha: Tensor) -> Tensor:
    return torch.lerp(below, colour.expand_as(below), alpha[:, None])


def _full(length: Length, like: Tensor) -> Tensor:
    return length.expand_as(like) if isinstance(length, Tensor) else torch.full_like(like, length)


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return first + (second - first) * share


def _rgb(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue])


def _ink(red: float, green: float, blue: float) -> Tensor:
    return _rgb(red, green, blue)[:, None, None]


def _rotation(pose: Tensor) -> Tensor:
    """``(N, 3, 3)``: columns are the head's axes in the camera's frame; roll after pitch after yaw."""
    yaw, pitch, roll = torch.deg2rad(pose).unbind(1)
    zero, one = torch.zeros_like(yaw), torch.ones_like(yaw)

    def matrix(*entries: Tensor) -> Tensor:
        return torch.stack(entries, dim=1).view(-1, 3, 3)

    turn = matrix(yaw.cos(), zero, yaw.sin(), zero, one, zero, -yaw.sin(), zero, yaw.cos())
    nod = matrix(one, zero, zero, zero, pitch.cos(), pitch.sin(), zero, -pitch.sin(), pitch.cos())
    lean = matrix(roll.cos(), roll.sin(), zero, -roll.sin(), roll.cos(), zero, zero, zero, one)
    return lean @ nod @ turn
