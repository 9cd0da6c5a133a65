"""Classes shown over the steps of a stage, counted."""

from collections import Counter

import pytest
import torch

from diffaudit.inversion.batches import rows_of_step, step_generator
from diffaudit.inversion.plans import StagePlan


def plan(batch: int, *, steps: int = 12, first_step: int = 0) -> StagePlan:
    return StagePlan("embed", ("embedding",), steps, {"embedding": 0.1}, batch, first_step, 0, 1.0, 0.0)


def shown(classes: int, batch: int, step: int, *, each: int = 1, seed: int = 3, first_step: int = 0) -> list[int]:
    generator = step_generator(seed, first_step + step)
    stage = plan(batch, first_step=first_step)
    return rows_of_step(classes, stage, step, each=each, seed=seed, generator=generator).tolist()


@pytest.mark.parametrize("each", [1, 2])
@pytest.mark.parametrize(("classes", "batch"), [(10, 4), (10, 10), (7, 3), (3, 8), (100, 20), (1, 5)])
def test_every_class_comes_as_often_as_any_other(classes: int, batch: int, each: int) -> None:
    """After any number of steps: also where a batch is smaller than the number of classes, or no part of it."""
    counts = Counter[int]()
    for step in range(12):
        rows = shown(classes, batch, step, each=each)
        assert len(rows) == batch
        counts.update(rows[::each])
        visits = [counts[row] for row in range(classes)]
        assert max(visits) - min(visits) <= 1


def test_each_of_a_class_stand_together() -> None:
    rows = shown(10, 6, 1, each=2)
    assert rows[::2] == rows[1::2]
    assert shown(10, 5, 1, each=2)[4] not in shown(10, 5, 1, each=2)[:4]


def test_orders_differ_from_one_another_and_by_seed() -> None:
    first, second = (shown(20, 20, step) for step in (0, 1))
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert shown(20, 20, 0, seed=4) != first
    assert shown(20, 20, 0, first_step=9) != first


def test_a_step_needs_nothing_of_those_before_it() -> None:
    """A stopped run asks for step 7 first, and gets what an unstopped one got after six others."""
    alone = shown(7, 3, 7)
    for step in range(7):
        shown(7, 3, step)
    assert shown(7, 3, 7) == alone


def test_an_order_that_begins_in_a_step_is_drawn_from_its_generator() -> None:
    """So that the step's other draws come after it, as they did when every step drew its own order."""
    generator, other = step_generator(3, 0), step_generator(3, 0)
    rows = rows_of_step(6, plan(6), 0, each=1, seed=3, generator=generator)
    assert torch.equal(rows, torch.randperm(6, generator=other))
    assert torch.equal(generator.get_state(), other.get_state())
