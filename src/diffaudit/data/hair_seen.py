"""What the hair of a changed picture deserves to be called: a picture that was recoloured fools nobody."""

from dataclasses import replace

import torch
from torch import Tensor

from diffaudit.data.captions import HAIR_COLOURS, HAIR_LENGTHS, hair_labels
from diffaudit.data.faces import IDENTITY_FACTORS, FaceFactors
from diffaudit.data.rendering import hair_colour, render_faces

LEAST = 1e-3
"""Brightness below which a picture's hair says nothing of its colour."""


def hair_labels_seen(faces: FaceFactors, images: Tensor) -> Tensor:
    r"""Return where in :data:`HAIR_LABELS` the hair stands that ``images`` show, which were made from ``faces``.

    .. math:: c'_b = c_b \frac{\sum_s h_{b,s} x'_{b,s}}{\sum_s h_{b,s} x_{b,s}}

    Shapes ``(N, 3, H, W) -> (N,)`` integers, for square images in [0, 1]. :math:`c_b` is the hair's own colour,
    :math:`x_b` the picture as it is rendered, :math:`x'_b` the changed one, and :math:`h_{b,s}` how much hair paints a
    place: by how much the picture would differ there with hair of another colour. The word is that of the colour
    nearest to :math:`c'_b`, as in :func:`.hair_labels`; the length is taken to be what it was. A change of the light
    on hair counts as one of its colour, which a model could not tell apart either. Where no hair is seen, the word
    stays.

    >>> from diffaudit.data.captions import HAIR_LABELS
    >>> from diffaudit.data.faces import sample_faces, sample_identities
    >>> faces = sample_faces(sample_identities(3, seed=1), seed=2)
    >>> [HAIR_LABELS[label] for label in hair_labels_seen(faces, render_faces(faces))]
    ['long brown hair', 'long blond hair', 'short blond hair']
    >>> [HAIR_LABELS[label] for label in hair_labels_seen(faces, render_faces(faces) * 0.3)]
    ['long black hair', 'long brown hair', 'short black hair']
    """
    before = render_faces(faces, size=images.shape[-1])
    painted = _painted(faces, before)
    light, now = ((painted * picture).sum((2, 3)) for picture in (before, images.to(before)))
    own = _own_colours(faces)
    seen = torch.where(light > LEAST, own * now / light.clamp(min=LEAST), own)
    named = torch.tensor(list(HAIR_COLOURS.values()))
    colour = (seen[:, None] - named).square().sum(2).argmin(1)
    return len(HAIR_LENGTHS) * colour + hair_labels(faces.identity) % len(HAIR_LENGTHS)


def _painted(faces: FaceFactors, rendered: Tensor) -> Tensor:
    """``(N, 1, H, W)``: how much each place of ``rendered`` owes to the hair's colour; sums to 1, or all 0."""
    darkness = IDENTITY_FACTORS.index("hair_darkness")
    other = faces.identity.clone()
    other[:, darkness] = 1 - other[:, darkness].round()
    recoloured = render_faces(replace(faces, identity=other), size=rendered.shape[-1])
    owed = (recoloured - rendered).abs().sum(1, keepdim=True)
    return owed / owed.sum((2, 3), keepdim=True).clamp(min=LEAST)


def _own_colours(faces: FaceFactors) -> Tensor:
    factor = dict(zip(IDENTITY_FACTORS, faces.identity.unbind(1), strict=True))
    return hair_colour(factor["hair_darkness"], factor["hair_redness"])
