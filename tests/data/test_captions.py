from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diffaudit.data.captions import (
    HAIR_COLOURS,
    HAIR_LENGTHS,
    LONGEST_CAPTION,
    VOCABULARY,
    captions,
    hair_words,
    split_words,
)
from diffaudit.data.faces import FaceFactors, sample_faces, sample_identities
from diffaudit.data.rendering import render_faces

Portrait = Callable[..., FaceFactors]

BROWN = "a portrait of a person with long brown hair"


@pytest.mark.parametrize(
    ("factors", "words"),
    [
        ({}, ""),
        ({"smile": 0.9}, ", smiling"),
        ({"smile": -0.9}, ", frowning"),
        ({"blink": 1.0}, ", blinking"),
        ({"yaw": -30.0}, ", facing left"),
        ({"yaw": 30.0}, ", facing right"),
        ({"pitch": 15.0}, ", facing up"),
        ({"pitch": -15.0}, ", facing down"),
        ({"yaw": 16.0, "pitch": -17.0}, ", facing down"),
        ({"yaw": 30.0, "pitch": -12.0}, ", facing right"),
        ({"yaw": 10.0, "pitch": 5.0}, ""),
        ({"light_azimuth": -80.0}, ", lit from the left"),
        ({"light_azimuth": 80.0}, ", lit from the right"),
        ({"light_elevation": 60.0}, ", lit from above"),
        ({"light_elevation": 65.0, "light_azimuth": 80.0}, ", lit from above"),
        ({"light_elevation": 35.0, "light_azimuth": 80.0}, ", lit from the right"),
        ({"light_elevation": -20.0}, ""),
        ({"glasses": 0.4}, " and glasses"),
    ],
)
def test_words_by_hand(portrait: Portrait, factors: dict[str, float], words: str) -> None:
    assert captions(portrait(hair_darkness=0.7, hair_redness=0.4, **factors)) == [BROWN + words]


def test_the_longest_caption(portrait: Portrait) -> None:
    everything = portrait(
        beard=1.0, glasses=1.0, hair_length=0.1, hair_darkness=1.0, hair_redness=0.0, smile=1.0, blink=1.0, yaw=-30.0,
        light_azimuth=80.0,
    )  # fmt: skip
    (caption,) = captions(everything)
    assert caption == (
        "a portrait of a bearded person with short black hair and glasses, smiling, blinking, facing left, "
        "lit from the right"
    )
    assert len(split_words(caption)) == LONGEST_CAPTION == 24


def test_captions_say_every_word_of_the_vocabulary_and_no_other() -> None:
    said = [split_words(caption) for caption in captions(sample_faces(sample_identities(20_000, seed=1), seed=2))]
    assert set().union(*said) == set(VOCABULARY)
    assert max(map(len, said)) <= LONGEST_CAPTION
    assert list(VOCABULARY) == sorted(set(VOCABULARY))


def test_tokens_rebuild_the_caption() -> None:
    for caption in captions(sample_faces(sample_identities(50, seed=1), seed=2)):
        assert " ".join(split_words(caption)).replace(" ,", ",") == caption


@pytest.mark.parametrize(
    ("darkness", "redness", "word"),
    [(0.0, 0.0, "grey"), (0.0, 1.0, "blond"), (0.5, 1.0, "red"), (0.7, 0.4, "brown"), (1.0, 0.0, "black")],
)
def test_hair_colours_of_the_plainest_heads(portrait: Portrait, darkness: float, redness: float, word: str) -> None:
    identity = portrait(hair_darkness=darkness, hair_redness=redness, hair_length=0.0).identity
    assert hair_words(identity) == [(word, "short")]


def test_every_hair_is_common_enough_to_learn() -> None:
    said = hair_words(sample_identities(5_000, seed=0))
    assert len(set(said)) == len(HAIR_COLOURS) * len(HAIR_LENGTHS)
    assert min(said.count(words) for words in set(said)) > 0.04 * len(said)


def test_hair_length_is_said_from_one_half(portrait: Portrait) -> None:
    lengths = [hair_words(portrait(hair_length=length).identity)[0][1] for length in (0.0, 0.49, 0.5, 1.0)]
    assert lengths == ["short", "short", "long", "long"]


def test_captions_of_no_faces() -> None:
    assert captions(sample_faces(sample_identities(1, seed=0), seed=0)[:0]) == []


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_the_side_said_to_be_lit_is_the_brighter_one(side: str, other: str) -> None:
    faces = sample_faces(sample_identities(150, seed=3), seed=4)
    lit = torch.tensor([f"lit from the {side}" in caption for caption in captions(faces)])
    head = render_faces(faces[lit], size=32).mean(dim=(0, 1))[8:24, 8:24]
    halves = {"left": head[:, :8].mean(), "right": head[:, 8:].mean()}
    assert halves[side] > halves[other] + 0.05
