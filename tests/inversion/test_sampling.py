"""Reconstructions: paired by class and seed, the surest kept, judged as the bytes they are."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.plans import SamplePlan
from diffaudit.inversion.sampling import Reconstructions, sample
from diffaudit.inversion.selection import robust_log_probability

CANDIDATES = 3


def reconstructions(attacker: Attacker, embeddings: Tensor, **changes: Any) -> Reconstructions:
    plan: dict[str, Any] = {
        "steps": 1,
        "strength": 0.9,
        "guidance_scale": 1.5,
        "candidates": CANDIDATES,
        "keep": CANDIDATES,
        "views": 2,
        "batch": 1,
    }
    apart: dict[str, Any] = {name: changes.pop(name) for name in ("seed", "on_batch") if name in changes}
    return sample(attacker, embeddings, SamplePlan(**plan | changes), **{"seed": 0, **apart})


@pytest.fixture
def embeddings(attacker: Attacker) -> Tensor:
    return attacker.pseudo_anchors(4)


def same(one: Reconstructions, other: Reconstructions, rows: Tensor | slice = slice(None)) -> bool:
    return all(torch.equal(value[rows], getattr(other, name)) for name, value in vars(one).items())


def test_a_class_gets_the_same_pictures_whatever_other_classes_are_there(
    attacker: Attacker, embeddings: Tensor
) -> None:
    """Batches of one image, so that not even rounding differs."""
    together = reconstructions(attacker, embeddings)
    alone = reconstructions(replace(attacker, classes=attacker.classes[2:3]), embeddings[2:3])
    assert same(together, alone, together.labels == attacker.classes[2])


def test_pictures_depend_on_the_number_of_candidates_too(attacker: Attacker, embeddings: Tensor) -> None:
    """Rows of other numbers of candidates are not paired picture by picture."""
    few = reconstructions(attacker, embeddings)
    more = reconstructions(attacker, embeddings, candidates=CANDIDATES + 1, keep=CANDIDATES + 1)
    assert not any((image == more.images).flatten(1).all(1).any() for image in few.images)


def test_sources_are_shared_by_rows_of_other_embeddings(attacker: Attacker, embeddings: Tensor) -> None:
    one, other = reconstructions(attacker, embeddings), reconstructions(attacker, embeddings.flip(1))
    for label in attacker.classes:
        mine, theirs = (set(r.sources[r.labels == label].tolist()) for r in (one, other))
        assert mine == theirs
    assert not torch.equal(one.images, other.images)


def test_seeds_and_classes_differ_in_their_sources(attacker: Attacker, embeddings: Tensor) -> None:
    one, other = reconstructions(attacker, embeddings), reconstructions(attacker, embeddings, seed=1)
    assert not torch.equal(one.sources, other.sources)
    assert len({tuple(sorted(part.tolist())) for part in one.sources.view(-1, CANDIDATES)}) == len(attacker.classes)


def test_the_best_are_kept_best_first_class_by_class(attacker: Attacker, embeddings: Tensor) -> None:
    every, kept = reconstructions(attacker, embeddings), reconstructions(attacker, embeddings, keep=2)
    assert kept.labels.tolist() == [label for label in attacker.classes.tolist() for _ in range(2)]
    ordered = every.scores.view(-1, CANDIDATES).sort(dim=1, descending=True).values
    assert torch.equal(kept.scores.view(-1, 2), ordered[:, :2])


def test_images_are_bytes_and_scored_as_bytes(attacker: Attacker, embeddings: Tensor) -> None:
    kept = reconstructions(attacker, embeddings, keep=1)
    assert kept.images.dtype == torch.uint8
    assert kept.images.shape == (5, 3, 16, 16)
    generator = torch.Generator().manual_seed(0)
    scores = robust_log_probability(
        attacker.classifier, kept.images.float() / 255, kept.labels, views=2, generator=generator
    )
    torch.testing.assert_close(kept.scores, scores)


def test_the_batch_changes_nothing_but_rounding(attacker: Attacker, embeddings: Tensor) -> None:
    one, other = reconstructions(attacker, embeddings), reconstructions(attacker, embeddings, batch=7)
    assert torch.equal(one.sources, other.sources)
    assert (one.images.int() - other.images.int()).abs().max() <= 1
    torch.testing.assert_close(one.scores, other.scores, atol=1e-3, rtol=0)


def test_progress_is_told_in_candidates(attacker: Attacker, embeddings: Tensor) -> None:
    told: list[tuple[int, int]] = []
    reconstructions(attacker, embeddings, batch=8, on_batch=lambda done, total: told.append((done, total)))
    assert told == [(8, 15), (15, 15)]
