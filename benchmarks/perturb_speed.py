"""Prints what an image and iteration of the perturbation cost: batched or alone, clean branch cached or recomputed.

Public code attacks one picture at a time and sends the clean latent through the UNet and the decoder beside the
perturbed one, at every iteration. Ours looks at the clean branch once and batches. All variants are timed in turn, one
process, one thread, the same pictures and settings; ratios are medians over the rounds. The goal is at least 3.

A second table counts the UNet's backward passes of an iteration, and its cost, by the number of surrogates: gradients
meet at the decoded image, so that one pull-back serves all models; at the latent each model needs its own.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from diffaudit import build
from diffaudit.configurations import settings_path
from diffaudit.models.conditioning import Condition
from diffaudit.perturbation import attack as loop
from diffaudit.perturbation.movers import mover_of
from diffaudit.perturbation.plans import Plans
from diffaudit.perturbation.rendering import Rendered, render
from diffaudit.perturbation.scene import Perturber, prepared
from diffaudit.settings import PerturbationSettings, load_perturbation
from diffaudit.study.run import reproducible

GOAL = 3.0


@dataclass(frozen=True)
class Setup:
    """A perturbation ready to be timed."""

    settings: PerturbationSettings
    perturber: Perturber
    plans: Plans
    images: Tensor
    labels: Tensor


def setup(pictures: int, iterations: int, **overrides: Any) -> Setup:
    """The embedded default on so many pictures, which take every iteration."""
    given = {"images.count": pictures, "budget.iterations": iterations, "budget.stop_margin": None, "threads": 1}
    settings = load_perturbation(settings_path("perturb"), given | overrides)
    victims = build.victims(settings.images)
    perturber = build.build_perturber(settings, victims.classes)
    plans = build.build_plans(settings, perturber)
    return Setup(settings, perturber, plans, victims.images.float() / 255, victims.labels)


def seconds(ready: Setup, batch: int, *, recomputed: bool = False) -> float:
    """Seconds per image and iteration; the preparation of the pictures is not in it."""
    taken = 0.0
    for rows in torch.arange(len(ready.images)).split(batch):
        plans = ready.plans
        pictures, labels = ready.images[rows], ready.labels[rows]
        scene = prepared(ready.perturber, pictures, labels, plans.path, plans.recording, plans.mask)
        drive = build.build_drive(ready.settings, ready.perturber, scene)
        terms = build.build_terms(ready.settings, ready.perturber, len(rows))
        mover = mover_of(plans.step)
        with clean_branch_beside(scene.latents) if recomputed else nullcontext():
            began = time.perf_counter()
            loop.attack(ready.perturber, scene, drive, terms, mover, plans, goal=None, numbers=rows.tolist(), seed=0)
            taken += time.perf_counter() - began
    return taken / (len(ready.images) * ready.plans.budget.iterations)


@contextmanager
def clean_branch_beside(clean: Tensor) -> Iterator[None]:
    """While the block runs, the clean latents go the same way beside the perturbed ones, and are decoded."""

    def doubled(prior: Any, latents: Tensor, condition: Condition, nulls: Any, *rest: Any, **options: Any) -> Rendered:
        both = torch.cat([clean, latents])
        twice = [None if null is None else null.followed_by(null) for null in nulls]
        found = render(prior, both, condition.followed_by(condition), twice, *rest, **options)
        own = len(latents)
        steps = tuple({layer: maps[own:] for layer, maps in step.items()} for step in found.steps)
        return replace(found, image=found.image[own:], steps=steps)

    with mock.patch.object(loop, "render", doubled):
        yield


def backward_passes(ready: Setup) -> float:
    """Backward passes of the UNet, of all its calls, per iteration and denoising step."""
    calls: list[int] = []
    handle = ready.perturber.prior.unet.register_full_backward_hook(lambda *_: calls.append(1))
    seconds(ready, len(ready.images))
    handle.remove()
    path = ready.plans.path
    return len(calls) / (ready.plans.budget.iterations * (path.steps - path.start))


def print_batching(ready: Setup, rounds: int) -> None:
    """One line a variant, with how many times the first costs as much."""
    whole = len(ready.images)
    variants = {
        f"batch {whole}, clean branch cached": (whole, False),
        f"batch {whole}, clean branch recomputed": (whole, True),
        "batch 1, clean branch cached": (1, False),
        "batch 1, clean branch recomputed": (1, True),
    }
    taken: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, (batch, recomputed) in variants.items():
            taken[name].append(seconds(ready, batch, recomputed=recomputed))
    first = next(iter(taken.values()))
    print(f"{whole} pictures, {ready.plans.budget.iterations} iterations, {rounds} rounds, one thread")
    for name, each in taken.items():
        ratio = statistics.median(one / base for one, base in zip(each, first, strict=True))
        print(f"  {name:36} {1000 * statistics.median(each):7.1f} ms per image and iteration {ratio:6.2f} x")
    print(f"  (goal: the last at least {GOAL:.0f} x)")


def print_ensembles(pictures: int, iterations: int, rounds: int) -> None:
    """Backward passes and time by the number of models and by where their gradients meet."""
    every = load_perturbation(settings_path("perturb")).model_dump(mode="json")["surrogates"]
    kinds = [("image", 1), ("image", len(every)), ("latent", len(every))]
    readies = [
        setup(
            pictures,
            iterations,
            surrogates=dict(list(every.items())[:models]),
            terms=[],
            **{"ensemble.space": space, "transformations.samples": 0},
        )
        for space, models in kinds
    ]
    taken: list[list[float]] = [[] for _ in kinds]
    for _ in range(rounds):
        for times, ready in zip(taken, readies, strict=True):
            times.append(seconds(ready, pictures))
    print("without terms and random views, gradients of the models combined")
    for (space, models), ready, times in zip(kinds, readies, taken, strict=True):
        passes, median = backward_passes(ready), 1000 * statistics.median(times)
        print(f"  at the {space:6} {models} models: {passes:.0f} UNet backward passes a step, {median:6.1f} ms")


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=10)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    ready = setup(arguments.pictures, arguments.iterations)
    with reproducible(ready.settings):
        print_batching(ready, arguments.rounds)
        print_ensembles(arguments.pictures, arguments.iterations, arguments.rounds)


if __name__ == "__main__":
    main()
