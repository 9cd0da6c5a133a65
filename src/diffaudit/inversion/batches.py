"""Which classes a training step shows: over the steps of a stage, every class as often as any other."""

import torch
from torch import Tensor

from diffaudit.inversion.plans import StagePlan


def step_generator(seed: int, number: int) -> torch.Generator:
    """What step ``number`` of a run draws from: the two alone decide it, so that a stopped run goes on alike."""
    return torch.Generator().manual_seed(seed * 1_000_003 + number)


def rows_of_step(
    classes: int, plan: StagePlan, step: int, *, each: int, seed: int, generator: torch.Generator
) -> Tensor:
    """``(plan.batch,)`` rows of ``classes``, ``each`` of a class together; none comes again before all have come.

    The stage goes through one order of the classes after another, and a step takes up where the one before it ended: a
    batch smaller than the number of classes leaves none out. An order is drawn in the step in which it begins, from
    that step's ``generator``; one that began earlier is drawn again as it was then.
    """
    groups = -(-plan.batch // each)
    begin, end = step * groups, (step + 1) * groups
    shown = []
    for order in range(begin // classes, (end - 1) // classes + 1):
        first = order * classes
        rows = (
            torch.randperm(classes, generator=generator)
            if first >= begin
            else _earlier(order, classes, groups, plan, seed)
        )
        shown.append(rows[max(0, begin - first) : end - first])
    return torch.cat(shown).repeat_interleave(each)[: plan.batch]


def _earlier(order: int, classes: int, groups: int, plan: StagePlan, seed: int) -> Tensor:
    """An order that began in an earlier step, whose generator may have drawn others before it."""
    step = order * classes // groups
    generator = step_generator(seed, plan.first_step + step)
    first_begun = -(-step * groups // classes)
    for _ in range(first_begun, order + 1):
        rows = torch.randperm(classes, generator=generator)
    return rows
