from dataclasses import replace

import torch

from diffaudit.data.captions import CLEAR_HAIR, HAIR_COLOURS, HAIR_LENGTHS, hair_clearness, hair_labels
from diffaudit.data.faces import IDENTITY_FACTORS, FaceFactors, sample_faces, sample_identities
from diffaudit.data.hair_seen import hair_labels_seen
from diffaudit.data.rendering import render_faces


def clear_faces(count: int = 40) -> FaceFactors:
    people = sample_identities(400, seed=5)
    people = people[hair_clearness(people) >= CLEAR_HAIR][:count]
    return sample_faces(people, seed=6)


def test_an_unchanged_picture_keeps_its_word() -> None:
    faces = clear_faces()
    assert torch.equal(hair_labels_seen(faces, render_faces(faces)), hair_labels(faces.identity))


def test_hair_that_is_rendered_in_another_colour_is_called_so() -> None:
    """The same heads with other hair, as the renderer paints it: the words are known without looking."""
    faces = clear_faces()
    other = faces.identity.clone()
    for name in ("hair_darkness", "hair_redness"):
        column = IDENTITY_FACTORS.index(name)
        other[:, column] = other[:, column].roll(1)
    recoloured = render_faces(replace(faces, identity=other))
    # Of hair that lies between two words either will do.
    clear = hair_clearness(other) >= CLEAR_HAIR
    found, named, own = (
        labels // len(HAIR_LENGTHS)
        for labels in (hair_labels_seen(faces, recoloured), hair_labels(other), hair_labels(faces.identity))
    )
    assert clear.sum() > 20
    assert (found == named)[clear].double().mean() >= 0.9
    assert (found != own).any()


def test_noise_that_does_not_recolour_keeps_the_word() -> None:
    faces = clear_faces()
    noise = torch.randn(len(faces), 3, 64, 64, generator=torch.Generator().manual_seed(0))
    changed = (render_faces(faces) + 8 / 255 * noise.sign()).clamp(0, 1)
    assert (hair_labels_seen(faces, changed) == hair_labels(faces.identity)).double().mean() >= 0.95


def test_what_is_not_hair_does_not_count() -> None:
    """The shoulders and the sky above every head, inverted."""
    faces = clear_faces()
    changed = render_faces(faces)
    for rows in (slice(0, 4), slice(60, 64)):
        changed[:, :, rows] = 1 - changed[:, :, rows]
    assert (hair_labels_seen(faces, changed) == hair_labels(faces.identity)).double().mean() >= 0.95


def test_hair_that_is_rendered_in_another_length_is_called_so() -> None:
    """Every head with the length of the one before it: all clear lengths, so none lies at the border."""
    faces = clear_faces()
    length = IDENTITY_FACTORS.index("hair_length")
    other = faces.identity.clone()
    other[:, length] = other[:, length].roll(1)
    found = hair_labels_seen(faces, render_faces(replace(faces, identity=other)))
    assert torch.equal(found % len(HAIR_LENGTHS), hair_labels(other) % len(HAIR_LENGTHS))
    assert (found == hair_labels(other)).double().mean() >= 0.95
    assert (found != hair_labels(faces.identity)).any()


def test_the_length_of_noisy_hair_is_what_it_was_rendered_with() -> None:
    """At 8/255, as far as an attack on pixels goes."""
    faces = clear_faces()
    grown = faces.identity.clone()
    grown[:, IDENTITY_FACTORS.index("hair_length")] = 0.9
    noise = torch.randn(len(faces), 3, 64, 64, generator=torch.Generator().manual_seed(0))
    changed = (render_faces(replace(faces, identity=grown)) + 8 / 255 * noise.sign()).clamp(0, 1)
    found = hair_labels_seen(faces, changed) % len(HAIR_LENGTHS)
    assert (found == HAIR_LENGTHS.index("long")).all()


def test_hair_in_the_dark_is_black() -> None:
    faces = clear_faces()
    found = hair_labels_seen(faces, torch.zeros(len(faces), 3, 64, 64))
    assert set((found // len(HAIR_LENGTHS)).tolist()) == {list(HAIR_COLOURS).index("black")}
