from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffaudit.data.captions import (
    CLEAR_HAIR,
    HAIR_COLOURS,
    HAIR_LABELS,
    HAIR_LENGTHS,
    LONGEST_CAPTION,
    VOCABULARY,
    captions,
    hair_clearness,
    hair_labels,
    split_words,
)
from diffaudit.data.faces import IDENTITY_FACTORS, FaceFactors, sample_faces, sample_identities
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
    assert hair_said(identity) == [f"short {word} hair"]
    assert hair_clearness(identity) > CLEAR_HAIR


def hair_said(identity: Tensor) -> list[str]:
    return [HAIR_LABELS[label] for label in hair_labels(identity)]


def test_labels_by_hand() -> None:
    assert HAIR_LABELS == (
        "long black hair", "short black hair", "long blond hair", "short blond hair", "long brown hair",
        "short brown hair", "long grey hair", "short grey hair", "long red hair", "short red hair",
    )  # fmt: skip
    assert set(split_words(" ".join(HAIR_LABELS))) <= set(VOCABULARY)


def test_labels_are_what_captions_say() -> None:
    faces = sample_faces(sample_identities(5_000, seed=5), seed=6)
    for hair, caption in zip(hair_said(faces.identity), captions(faces), strict=True):
        assert [label for label in HAIR_LABELS if f"person with {label}" in caption] == [hair]


def test_every_hair_is_common_enough_to_learn() -> None:
    identity = sample_identities(5_000, seed=0)
    counts = hair_labels(identity).bincount()
    assert len(counts) == len(HAIR_LABELS) == len(HAIR_COLOURS) * len(HAIR_LENGTHS)
    assert counts.min() > 0.04 * counts.sum()
    assert hair_labels(identity[hair_clearness(identity) >= CLEAR_HAIR]).bincount().min() > 0.02 * counts.sum()


def test_hair_length_is_said_from_one_half(portrait: Portrait) -> None:
    said = [hair_said(portrait(hair_length=length).identity)[0].split()[0] for length in (0.0, 0.49, 0.5, 1.0)]
    assert said == ["short", "short", "long", "long"]


@pytest.mark.parametrize(
    ("length", "clearness"),
    # The darkest hair is (0.06, 0.06, 0.07): 0.0224 from black, 0.3648 from brown.
    [(0.0, 1 - 0.0224 / 0.3648), (0.6, 0.2), (0.5, 0.0), (0.4, 0.2), (1.0, 1 - 0.0224 / 0.3648)],
)
def test_clearness_by_hand(portrait: Portrait, length: float, clearness: float) -> None:
    identity = portrait(hair_darkness=1.0, hair_redness=0.0, hair_length=length).identity
    assert float(hair_clearness(identity)) == pytest.approx(clearness, abs=1e-3)


@pytest.mark.parametrize("factor", ["hair_darkness", "hair_redness", "hair_length"])
def test_clearness_is_gone_where_the_word_changes(portrait: Portrait, factor: str) -> None:
    identity = portrait(hair_darkness=0.2, hair_redness=0.2, hair_length=0.9).identity.repeat(10_001, 1)
    identity[:, IDENTITY_FACTORS.index(factor)] = torch.linspace(0, 1, 10_001)
    clearness, changes = hair_clearness(identity), hair_labels(identity).diff().nonzero()[:, 0]
    assert len(changes)
    assert clearness[changes].max() < 1e-3
    assert 0 <= clearness.min() <= clearness.max() <= 1


def test_captions_of_no_faces() -> None:
    assert captions(sample_faces(sample_identities(1, seed=0), seed=0)[:0]) == []


@pytest.mark.parametrize(("side", "other"), [("left", "right"), ("right", "left")])
def test_the_side_said_to_be_lit_is_the_brighter_one(side: str, other: str) -> None:
    faces = sample_faces(sample_identities(150, seed=3), seed=4)
    lit = torch.tensor([f"lit from the {side}" in caption for caption in captions(faces)])
    head = render_faces(faces[lit], size=32).mean(dim=(0, 1))[8:24, 8:24]
    halves = {"left": head[:, :8].mean(), "right": head[:, 8:].mean()}
    assert halves[side] > halves[other] + 0.05
