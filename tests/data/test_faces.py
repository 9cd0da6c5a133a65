from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from diffaudit.data.faces import (
    BEARD_RATE,
    GLASSES_RATE,
    IDENTITY_FACTORS,
    FaceFactors,
    photographs,
    sample_faces,
    sample_identities,
    with_near_twins,
)

OPTIONAL = [IDENTITY_FACTORS.index("beard"), IDENTITY_FACTORS.index("glasses")]
GROUPS = [field.name for field in fields(FaceFactors)]


def test_identities_are_uniform_but_for_beard_and_glasses() -> None:
    factors = sample_identities(20_000, seed=0)
    continuous = [column for column in range(len(IDENTITY_FACTORS)) if column not in OPTIONAL]
    assert factors.shape == (20_000, 23)
    # A uniform variable has mean 1/2 and variance 1/12; five standard errors of the mean are 0.01.
    assert (factors[:, continuous].mean(dim=0) - 0.5).abs().max() < 0.011
    assert (factors[:, continuous].var(dim=0) - 1 / 12).abs().max() < 0.003
    correlation = torch.corrcoef(factors.T) - torch.eye(23)
    assert correlation.abs().max() < 0.035


@pytest.mark.parametrize(("name", "rate"), [("beard", BEARD_RATE), ("glasses", GLASSES_RATE)])
def test_beard_and_glasses_are_absent_or_plain(name: str, rate: float) -> None:
    column = sample_identities(20_000, seed=0)[:, IDENTITY_FACTORS.index(name)]
    present = column[column > 0]
    assert len(present) / 20_000 == pytest.approx(rate, abs=0.02)
    assert present.min() >= 0.4
    assert present.max() <= 1


@pytest.mark.parametrize("count", [1, 2, 7, 40])
def test_first_rows_do_not_depend_on_the_count(count: int) -> None:
    many = sample_identities(100, seed=3)
    assert torch.equal(sample_identities(count, seed=3), many[:count])
    faces, fewer = sample_faces(many, seed=4), sample_faces(many[:count], seed=4)
    for name in GROUPS:
        assert torch.equal(getattr(fewer, name), getattr(faces, name)[:count])


def test_a_seed_decides_and_another_differs() -> None:
    first, again, other = (sample_identities(5, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    pose, same, moved = (sample_faces(first, seed=seed).pose for seed in (0, 0, 1))
    assert torch.equal(pose, same)
    assert not torch.equal(pose, moved)


def test_sampling_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    sample_faces(with_near_twins(sample_identities(10, seed=0), 3, seed=1), seed=2)
    assert torch.equal(before, torch.get_rng_state())


def test_factors_keep_their_ranges() -> None:
    faces = sample_faces(sample_identities(5_000, seed=0), seed=1)

    def spans(group: torch.Tensor, low: list[float], high: list[float]) -> None:
        assert (group.min(dim=0).values >= torch.tensor(low)).all()
        assert (group.max(dim=0).values <= torch.tensor(high)).all()

    spans(faces.pose, [-36, -18, -12], [36, 18, 12])
    spans(faces.expression, [-1, 0, 0, -1], [1, 1, 1, 1])
    spans(faces.illumination, [-90, -20, 0.25], [90, 70, 0.65])
    spans(faces.scene, [0] * 13, [1] * 13)


def test_a_photograph_depends_on_its_seed_and_not_on_the_person() -> None:
    one, other = (sample_faces(sample_identities(20, seed=seed), seed=9) for seed in (0, 1))
    for name in GROUPS[1:]:
        assert torch.equal(getattr(one, name), getattr(other, name))


def test_photographs_of_a_person_share_the_identity_alone() -> None:
    identities = sample_identities(4, seed=0)
    faces, labels = photographs(identities, 3, seed=1)
    assert labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert torch.equal(faces.identity, identities[labels])
    for name in GROUPS[1:]:
        assert len(getattr(faces, name).unique(dim=0)) == 12


def test_a_slice_takes_the_same_rows_of_every_group() -> None:
    faces = sample_faces(sample_identities(6, seed=0), seed=1)
    for part, rows in ((faces[2:4], [2, 3]), (faces[torch.tensor([5, 0])], [5, 0])):
        assert len(part) == 2
        for name in GROUPS:
            assert torch.equal(getattr(part, name), getattr(faces, name)[rows])


@pytest.mark.parametrize("seed", range(20))
def test_near_twins_differ_in_three_factors_by_the_least_or_more(seed: int) -> None:
    identities = sample_identities(100, seed=seed)
    faces = with_near_twins(identities, 50, seed=seed + 1)
    assert torch.equal(faces[:50], identities[:50])
    difference = (faces[50:] - identities[:50]).abs()
    assert (difference > 0).sum(dim=1).eq(3).all()
    assert difference[difference > 0].min() >= 0.35 - 1e-6
    assert faces.min() >= 0
    assert faces.max() <= 1


def test_near_twins_keep_hair_beard_and_glasses() -> None:
    faces = with_near_twins(sample_identities(400, seed=0), 200, seed=1)
    changed = (faces[200:] != faces[:200]).any(dim=0)
    kept = [name.startswith(("hair", "beard", "glasses")) for name in IDENTITY_FACTORS]
    assert changed.tolist() == [not keeps for keeps in kept]


def test_no_pairs_change_nothing_and_too_many_are_refused() -> None:
    identities = sample_identities(5, seed=0)
    assert torch.equal(with_near_twins(identities, 0, seed=1), identities)
    with pytest.raises(ValueError, match=r"`pairs` should be between 0 and half the identities \(2\)\. Found 3\."):
        with_near_twins(identities, 3, seed=1)
