"""What the hair of a changed picture deserves to be called: one that was recoloured, or has grown, fools nobody."""

from dataclasses import replace

import torch
from torch import Tensor

from diffaudit.data.captions import HAIR_COLOURS, HAIR_LENGTHS, LONG_HAIR
from diffaudit.data.faces import IDENTITY_FACTORS, FaceFactors
from diffaudit.data.rendering import hair_colour, render_faces

LEAST = 1e-3
"""Brightness below which a picture's hair says nothing of its colour."""
LENGTHS = tuple((step + 0.5) / 8 for step in range(8))
"""Lengths that a picture is compared with; half of them are long."""


def hair_labels_seen(faces: FaceFactors, images: Tensor) -> Tensor:
    r"""Return where in :data:`HAIR_LABELS` the hair stands that ``images`` show, which were made from ``faces``.

    .. math::
        c'_b = c_b \frac{\sum_s h_{b,s} x'_{b,s}}{\sum_s h_{b,s} x_{b,s}}, \qquad
        l' = \arg\min_l \sum_{b,s} (x'_{b,s} - x_{b,s}(l))^2

    Shapes ``(N, 3, H, W) -> (N,)`` integers, for square images in [0, 1]. :math:`c_b` is the hair's own colour,
    :math:`x_b` the picture as it is rendered, :math:`x'_b` the changed one, :math:`h_{b,s}` how much hair paints a
    place (by how much the picture would differ there with hair of another colour), and :math:`x(l)` the picture as it
    would be rendered with hair of length :math:`l`. The words are those of the colour nearest to :math:`c'_b` and of
    :math:`l'`, as in :func:`.hair_labels`. A change of the light on hair counts as one of its colour, which a model
    could not tell apart either; the length is looked for in the hair's own colour, so that of recoloured hair can be
    misread. Where no hair is seen, its word for colour stays.

    >>> from diffaudit.data.captions import HAIR_LABELS
    >>> from diffaudit.data.faces import sample_faces, sample_identities
    >>> faces = sample_faces(sample_identities(3, seed=1), seed=2)
    >>> [HAIR_LABELS[label] for label in hair_labels_seen(faces, render_faces(faces))]
    ['long brown hair', 'long blond hair', 'short blond hair']
    """
    return len(HAIR_LENGTHS) * _colours_seen(faces, images) + (_lengths_seen(faces, images) < LONG_HAIR)


def _colours_seen(faces: FaceFactors, images: Tensor) -> Tensor:
    """``(N,)`` integers: where among the words for colours."""
    before = render_faces(faces, size=images.shape[-1])
    painted = _painted(faces, before)
    light, now = ((painted * picture).sum((2, 3)) for picture in (before, images.to(before)))
    own = _own_colours(faces)
    seen = torch.where(light > LEAST, own * now / light.clamp(min=LEAST), own)
    named = torch.tensor(list(HAIR_COLOURS.values()))
    return (seen[:, None] - named).square().sum(2).argmin(1)


def _lengths_seen(faces: FaceFactors, images: Tensor) -> Tensor:
    """``(N,)``, one of :data:`LENGTHS` each."""
    rendered = (render_faces(_with(faces, "hair_length", length), size=images.shape[-1]) for length in LENGTHS)
    misfit = torch.stack([(images.to(picture) - picture).square().sum((1, 2, 3)) for picture in rendered], 1)
    return torch.tensor(LENGTHS)[misfit.argmin(1)]


def _painted(faces: FaceFactors, rendered: Tensor) -> Tensor:
    """``(N, 1, H, W)``: how much each place of ``rendered`` owes to the hair's colour; sums to 1, or all 0."""
    darkness = faces.identity[:, IDENTITY_FACTORS.index("hair_darkness")]
    recoloured = render_faces(_with(faces, "hair_darkness", 1 - darkness.round()), size=rendered.shape[-1])
    owed = (recoloured - rendered).abs().sum(1, keepdim=True)
    return owed / owed.sum((2, 3), keepdim=True).clamp(min=LEAST)


def _own_colours(faces: FaceFactors) -> Tensor:
    factor = dict(zip(IDENTITY_FACTORS, faces.identity.unbind(1), strict=True))
    return hair_colour(factor["hair_darkness"], factor["hair_redness"])


def _with(faces: FaceFactors, factor: str, value: Tensor | float) -> FaceFactors:
    """The same faces but for one factor of identity."""
    identity = faces.identity.clone()
    identity[:, IDENTITY_FACTORS.index(factor)] = value
    return replace(faces, identity=identity)
