"""Captions in plain words for procedural faces, so that a prior or a classifier can be asked for a face by its words.

Directions are those of the picture: "facing left" looks toward its left edge, "lit from the left" is brightest there.
"""

import math
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from diffaudit.data.faces import EXPRESSION_FACTORS, IDENTITY_FACTORS, ILLUMINATION_FACTORS, POSE_FACTORS, FaceFactors
from diffaudit.data.rendering import hair_colour

HAIR_COLOURS: Mapping[str, tuple[float, float, float]] = {
    "black": (0.08, 0.07, 0.07),
    "blond": (0.86, 0.64, 0.32),
    "brown": (0.37, 0.23, 0.16),
    "grey": (0.72, 0.69, 0.64),
    "red": (0.66, 0.27, 0.08),
}
"""What each word for a hair colour means: RGB in [0, 1]."""

HAIR_LENGTHS = ("long", "short")
HAIR_LABELS = tuple(f"{length} {colour} hair" for colour in HAIR_COLOURS for length in HAIR_LENGTHS)
"""What a caption says of hair, by :func:`hair_labels`: colours in the order above, of each the long hair first."""

LONGEST_CAPTION = 24
"""The most tokens that :func:`split_words` finds in a caption."""

# fmt: off
VOCABULARY = (
    ",", "a", "above", "and", "bearded", "black", "blinking", "blond", "brown", "down", "facing", "from", "frowning",
    "glasses", "grey", "hair", "left", "lit", "long", "of", "person", "portrait", "red", "right", "short", "smiling",
    "the", "up", "with",
)
# fmt: on
"""Every token that a caption can hold, sorted; a comma is one of them."""

# Where a word begins to be said. Hair that falls below an average chin is long; a closed eye has no white left.
LONG_HAIR = 0.5
CLEAR_SMILE = 0.35
CLOSED_EYES = 0.9
CLEAR_YAW = 15.0
CLEAR_PITCH = 10.0
CLEAR_LIGHT = 0.5

CLEAR_HAIR = 0.3
"""The :func:`hair_clearness` from which hair is clear. Captions name all hair; about half of all heads have clear hair.

Below, a photograph's light and pose decide between two words as much as the hair does."""


def captions(faces: FaceFactors) -> list[str]:
    """Return one caption per row of ``faces``, of :data:`VOCABULARY` and at most :data:`LONGEST_CAPTION` tokens.

    Hair is always named, the rest only where it is clear: a beard, glasses, a smile or frown, closed eyes, one
    direction of the face (the clearer of yaw and pitch), one direction of the light. A caption that is silent on
    direction shows a face from the front, or lit from the front.

    >>> from diffaudit.data.faces import sample_faces, sample_identities
    >>> for caption in captions(sample_faces(sample_identities(3, seed=1), seed=2)):
    ...     print(caption)
    a portrait of a bearded person with long brown hair and glasses, lit from the left
    a portrait of a person with long blond hair and glasses, frowning, lit from the left
    a portrait of a person with short blond hair, smiling
    """
    words = zip(
        hair_labels(faces.identity).tolist(),
        _column(faces.identity, IDENTITY_FACTORS, "beard"),
        _column(faces.identity, IDENTITY_FACTORS, "glasses"),
        _column(faces.expression, EXPRESSION_FACTORS, "smile"),
        _column(faces.expression, EXPRESSION_FACTORS, "blink"),
        _column(faces.pose, POSE_FACTORS, "yaw"),
        _column(faces.pose, POSE_FACTORS, "pitch"),
        _column(faces.illumination, ILLUMINATION_FACTORS, "light_azimuth"),
        _column(faces.illumination, ILLUMINATION_FACTORS, "light_elevation"),
        strict=True,
    )
    return [
        _person(HAIR_LABELS[hair], beard, glasses)
        + _expression(smile, blink)
        + _facing(yaw, pitch)
        + _light(side, height)
        for hair, beard, glasses, smile, blink, yaw, pitch, side, height in words
    ]


def hair_labels(identity: Tensor) -> Tensor:
    """Return where in :data:`HAIR_LABELS` the hair of each face stands, ``(N, 23) -> (N,)`` integers.

    The colour is the nearest in RGB of :data:`HAIR_COLOURS`; hair is long from :data:`LONG_HAIR` on.

    >>> from diffaudit.data.faces import sample_identities
    >>> [HAIR_LABELS[label] for label in hair_labels(sample_identities(3, seed=1))]
    ['long brown hair', 'long blond hair', 'short blond hair']
    """
    distances, length = _hair(identity)
    return len(HAIR_LENGTHS) * distances.argmin(dim=1) + (length < LONG_HAIR)


def hair_clearness(identity: Tensor) -> Tensor:
    """Return how far from their borders the words for hair are, ``(N, 23) -> (N,)`` in [0, 1].

    The smaller of two: one less the ratio of the distances to the nearest and to the next colour, and how far the
    length is from :data:`LONG_HAIR`, 1 for the longest and the shortest. At 0 another word would do as well.

    >>> from diffaudit.data.faces import sample_identities
    >>> hair_clearness(sample_identities(3, seed=1))
    tensor([0.5087, 0.2794, 0.1823])
    """
    distances, length = _hair(identity)
    nearest, following = distances.sort(dim=1).values[:, :2].unbind(1)
    return torch.minimum(1 - nearest / following, (length - LONG_HAIR).abs() / LONG_HAIR)


def split_words(caption: str) -> list[str]:
    """Return the tokens of a caption: its words, and its commas.

    >>> split_words("a person, smiling")
    ['a', 'person', ',', 'smiling']
    """
    return re.findall(r"[a-z]+|,", caption.lower())


def _hair(identity: Tensor) -> tuple[Tensor, Tensor]:
    """The distances in RGB to every colour with a word, ``(N, 5)``, and the length ``(N,)``."""
    factor = dict(zip(IDENTITY_FACTORS, identity.unbind(1), strict=True))
    colours = hair_colour(factor["hair_darkness"], factor["hair_redness"])
    named = torch.tensor(list(HAIR_COLOURS.values()))
    return (colours[:, None] - named).square().sum(dim=2).sqrt(), factor["hair_length"]


def _person(hair: str, beard: float, glasses: float) -> str:
    who = "a bearded person" if beard > 0 else "a person"
    return f"a portrait of {who} with {hair}{' and glasses' if glasses > 0 else ''}"


def _expression(smile: float, blink: float) -> str:
    mood = ", smiling" if smile > CLEAR_SMILE else ", frowning" if smile < -CLEAR_SMILE else ""
    return mood + (", blinking" if blink > CLOSED_EYES else "")


def _facing(yaw: float, pitch: float) -> str:
    across, along = yaw / CLEAR_YAW, pitch / CLEAR_PITCH
    if max(abs(across), abs(along)) <= 1:
        return ""
    if abs(across) >= abs(along):
        return ", facing right" if across > 0 else ", facing left"
    return ", facing up" if along > 0 else ", facing down"


def _light(azimuth: float, elevation: float) -> str:
    """The word for the larger part, across the picture or upward, of the unit vector toward the light."""
    side = math.sin(math.radians(azimuth)) * math.cos(math.radians(elevation))
    height = math.sin(math.radians(elevation))
    if max(abs(side), height) <= CLEAR_LIGHT:
        return ""
    if abs(side) >= height:
        return ", lit from the right" if side > 0 else ", lit from the left"
    return ", lit from above"


def _column(factors: Tensor, names: tuple[str, ...], name: str) -> list[float]:
    column: list[float] = factors[:, names.index(name)].tolist()
    return column
