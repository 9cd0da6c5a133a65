"""Prints which share of a training step is spent outside the models: drawing, sampling arithmetic, terms, bookkeeping.

Inside is the time of the models' own forward passes and of ``loss.backward()``, which cannot be told apart by model:
it is the models' backward passes and, a small part, that of the terms and of the sampler's arithmetic between them.
Whatever else the wall clock shows is outside. The goal is at most 10 %.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from torch import nn

from diffaudit import build
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.plans import StagePlan
from diffaudit.inversion.state import TrainingState, stage_optimiser
from diffaudit.inversion.training import StepReport, train_stage
from diffaudit.settings import InversionSettings, load_settings
from diffaudit.study.run import reproducible

DEFAULT = Path(__file__).parents[1] / "configs" / "quick.yaml"
GOAL = 0.1


class Stopwatch:
    """Seconds by part; a part that runs inside another one counts for the outer one alone."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._running: list[float] = []

    def enter(self) -> None:
        """A part begins."""
        self._running.append(time.perf_counter())

    def leave(self, part: str) -> None:
        """The part that began last ends."""
        began = self._running.pop()
        if not self._running:
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began

    def watch(self, part: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Hooks that time every forward pass of ``module``."""
        return [
            module.register_forward_pre_hook(lambda *_: self.enter(), prepend=True),
            module.register_forward_hook(lambda *_: self.leave(part)),
        ]

    def taken(self) -> dict[str, float]:
        """The seconds since the last call."""
        seconds, self.seconds = self.seconds, {}
        return seconds


def models(attacker: Attacker) -> Iterator[tuple[str, nn.Module]]:
    """The networks alone: what prepares their inputs, such as the tokenizer, is outside."""
    prior = attacker.prior
    yield "UNet", prior.unet
    # A bundled autoencoder's encode and decode call these two parts.
    yield "autoencoder, encode", prior.autoencoder.encoder
    yield "autoencoder, decode", prior.autoencoder.decoder
    if prior.text is not None:
        yield "text encoder", prior.text.encoder
    if prior.projector is not None:
        yield "identity projector", prior.projector
    yield "classifier", attacker.classifier
    yield "identity encoder", attacker.encoder
    yield "perceptual features", attacker.perceptual


@contextmanager
def timed(attacker: Attacker, watch: Stopwatch) -> Iterator[None]:
    """Times the models and the backward pass while the block runs."""
    handles = [handle for part, module in models(attacker) for handle in watch.watch(part, module)]
    backward: Callable[..., None] = torch.autograd.backward

    def timed_backward(*arguments: object, **options: object) -> None:
        watch.enter()
        backward(*arguments, **options)
        watch.leave("backward")

    try:
        with mock.patch("torch.autograd.backward", timed_backward):
            yield
    finally:
        for handle in handles:
            handle.remove()


def steps_of(
    state: TrainingState, settings: InversionSettings, plan: StagePlan
) -> tuple[list[float], list[dict[str, float]]]:
    """Wall seconds and seconds by part of each step of a stage; the first step, which warms up, is left out."""
    watch, walls, parts = Stopwatch(), list[float](), list[dict[str, float]]()
    began = time.perf_counter()

    def on_step(_: StepReport, __: torch.optim.Optimizer) -> None:
        nonlocal began
        walls.append(time.perf_counter() - began)
        parts.append(watch.taken())
        began = time.perf_counter()

    image = build.build_image_plan(settings.image)
    optimiser = stage_optimiser(state, plan)
    with timed(state.attacker, watch):
        began = time.perf_counter()
        train_stage(state, plan, image, optimiser, state.embedding, seed=settings.seed, on_step=on_step)
    return walls[1:], parts[1:]


def outside(walls: list[float], parts: list[dict[str, float]]) -> float:
    """The median over steps of the share of a step that no part accounts for."""
    return statistics.median(1 - sum(part.values()) / wall for wall, part in zip(walls, parts, strict=True))


def print_table(name: str, walls: list[float], parts: list[dict[str, float]]) -> float:
    """Prints a stage's parts, largest first, as medians over steps, and returns the share outside."""
    share = outside(walls, parts)
    names = {part for step in parts for part in step}
    medians = {part: statistics.median(step.get(part, 0.0) for step in parts) for part in names}
    wall = statistics.median(walls)
    print(f"stage {name}: {1000 * wall:.0f} ms a step, median of {len(walls)}")
    for part, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        print(f"  {part:22} {1000 * seconds:8.1f} ms {seconds / wall:7.1%}")
    print(f"  {'outside':22} {1000 * share * wall:8.1f} ms {share:7.1%}  (goal: at most {GOAL:.0%})")
    return share


def print_stages(settings: InversionSettings, steps: int) -> None:
    """Prints a table for each stage: ``steps`` steps, after one that is not counted."""
    attacker = build.build_attacker(settings)
    anchors = attacker.pseudo_anchors(settings.embedding.anchor_images)
    stages = [stage.model_copy(update={"steps": steps + 1}) for stage in settings.stages if stage.steps > 0]
    settings = settings.model_copy(update={"stages": stages})
    state = build.build_state(settings, attacker, anchors)
    for plan in build.build_stages(settings):
        print_table(plan.name, *steps_of(state, settings, plan))


def main() -> None:
    """Print a table for each stage of the settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=Path, default=DEFAULT)
    parser.add_argument("--steps", type=int, default=10, help="steps of each stage that count")
    parser.add_argument("--classes", type=int, default=20)
    arguments = parser.parse_args()
    settings = load_settings(arguments.settings, {"classes": arguments.classes, "threads": 1})
    with reproducible(settings):
        print_stages(settings, arguments.steps)


if __name__ == "__main__":
    main()
