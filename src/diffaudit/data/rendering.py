"""Renders :class:`~diffaudit.data.faces.FaceFactors`: a head made of a few ellipsoids with a face painted on it.

Everything is elementwise on ``(N, H, W)`` tensors, so an image does not depend on its batch-mates. Eyes, brows, mouth,
beard and glasses are soft-edged shapes painted on the face's surface in the head's own frame, so that they turn,
foreshorten and vanish with it.
"""

from dataclasses import replace

import torch
from torch import Tensor

from diffaudit.data.canvas import Canvas, Frame, Surface, mix, rotation
from diffaudit.data.faces import IDENTITY_FACTORS, FaceFactors

CHUNK_PIXELS = 64 * 64 * 32


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
    light = mix(_rgb(0.80, 0.78, 0.74), _rgb(0.93, 0.66, 0.22), redness[:, None])
    middle = mix(_rgb(0.42, 0.36, 0.30), _rgb(0.70, 0.25, 0.06), redness[:, None])
    dark = mix(_rgb(0.06, 0.06, 0.07), _rgb(0.24, 0.09, 0.05), redness[:, None])
    lower = mix(light, middle, (2 * darkness[:, None]).clamp(max=1))
    return mix(lower, dark, (2 * darkness[:, None] - 1).clamp(min=0))


def skin_colour(tone: Tensor, warmth: Tensor) -> Tensor:
    """``(N,), (N,) -> (N, 3)`` RGB, from dark (tone 0) to fair (tone 1).

    >>> skin_colour(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))
    tensor([[0.2600, 0.1900, 0.1500],
            [1.0000, 0.7800, 0.6600]])
    """
    dark = mix(_rgb(0.26, 0.19, 0.15), _rgb(0.36, 0.19, 0.11), warmth[:, None])
    fair = mix(_rgb(0.93, 0.84, 0.78), _rgb(1.00, 0.78, 0.66), warmth[:, None])
    return mix(dark, fair, tone[:, None])


def _render(faces: FaceFactors, size: int) -> Tensor:
    person = _Person(faces)
    canvas = Canvas(faces, size)
    turned = rotation(faces.pose)
    half_turned = rotation(faces.pose * torch.tensor([0.4, 0.0, 0.0]))

    behind = Frame(canvas.window(-0.95, 0.95, -1, 0.6), turned)
    fall = behind.ellipsoid((0, person.fall_y, -0.18), (person.fall_width, person.fall_height, 0.3))
    behind.paint(person.hair * 0.9, fall)
    body = Frame(canvas.window(-1, 1, -1, -0.2), half_turned)
    body.paint(person.skin * 0.85, body.ellipsoid((0, -0.72, -0.1), (0.2, 0.5, 0.2)))
    body.paint(person.cloth, body.ellipsoid((0, -1.18, -0.1), (0.76, 0.42, 0.36)))
    for side in (-1, 1):
        left, right = sorted((side * 0.15, side * 0.8))
        ear = Frame(canvas.window(left, right, -0.45, 0.45), turned)
        ear.paint(person.skin * 0.93, ear.ellipsoid((side * person.width * 0.97, 0, -0.05), (0.05, person.ear, 0.09)))

    head = Frame(canvas.window(-0.66, 0.66, -0.82, 0.85), turned)
    skull = head.ellipsoid((0, 0, 0), (person.width, person.height, 0.5), taper=person.taper)
    head.paint(_face(person, faces, skull.point, canvas.pixel), skull)
    middle = Frame(canvas.window(-0.6, 0.6, -0.6, 0.4), turned)
    nose = middle.ellipsoid((0, person.nose_y, 0.44), (person.nose_width, person.nose_length, 0.14))
    middle.paint(person.skin * _ink(0.97, 0.92, 0.91), nose)
    if bool((person.glasses > 0).any()):
        frames = _glasses(person, skull, canvas.pixel)
        head.paint(_ink(0.08, 0.08, 0.09)[None], replace(skull, alpha=frames, depth=skull.depth + 0.2))

    above = Frame(canvas.window(-0.85, 0.85, -0.85, 0.97), turned)
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
        blue_to_green = mix(_rgb(0.20, 0.42, 0.80), _rgb(0.22, 0.58, 0.30), (2 * hue).clamp(max=1))
        self.iris = mix(blue_to_green, _rgb(0.33, 0.18, 0.08), (2 * hue - 1).clamp(min=0))[:, :, None, None]
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


def _glasses(person: _Person, surface: Surface, pixel: float) -> Tensor:
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


def _rgb(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue])


def _ink(red: float, green: float, blue: float) -> Tensor:
    return _rgb(red, green, blue)[:, None, None]
