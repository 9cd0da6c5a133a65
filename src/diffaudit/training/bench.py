"""The bench of a benchmark that trains models of its own: recipes, trials, checkpoints, cards, a link to its data."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffaudit.training.loop import Schedule, fit

QUICK_DIVISOR = 250
DATA_VARIABLE = "DIFFAUDIT_SHARED_DATA"


@dataclass(frozen=True)
class Recipe:
    """From which seed, how long and how fast a part trains."""

    seed: int
    batch: int
    schedule: Schedule


@dataclass(frozen=True)
class Bench:
    """Where photographs come from, where models go, by which recipes, and whether this is a trial.

    Attributes:
        name: of the benchmark; its parts are called ``<name>-<part>``.
        data: the folder of the photographs, which are only read.
        output: every part gets a folder in it, with a card when it is finished.
        recipes: by part.
        quick: a trial of a few steps.
        say: told a line now and then.
    """

    name: str
    data: Path
    output: Path
    recipes: Mapping[str, Recipe]
    quick: bool
    say: Callable[[str], None]

    @property
    def work(self) -> Path:
        """Checkpoints, and what else need not be kept."""
        return self.output / ".work"

    def finished(self, part: str) -> bool:
        """Whether the part has its card."""
        return (self.output / part / "card.json").exists()

    def schedule(self, part: str) -> Schedule:
        """The recipe's, or its trial's."""
        schedule = self.recipes[part].schedule
        return replace(schedule, steps=max(2, schedule.steps // QUICK_DIVISOR)) if self.quick else schedule

    def train(self, part: str, module: nn.Module, loss: Callable[[torch.Generator], Tensor]) -> float:
        """Fits ``module`` by the recipe of ``part``, from its last checkpoint if it has one; returns the seconds."""
        return fit(
            module,
            loss,
            self.schedule(part),
            seed=self.recipes[part].seed,
            checkpoint=self.work / f"{part}.ck",
            every=100,
            progress=LossLines(part, self.say),
        )

    def card(
        self,
        part: str,
        module: nn.Module,
        seconds: float,
        *,
        architecture: str,
        size: int,
        data: str,
        scores: Mapping[str, Any],
    ) -> dict[str, Any]:
        """How a part was made and what it scores."""
        recipe = self.recipes[part]
        return {
            "name": f"{self.name}-{part}",
            "architecture": architecture,
            "size": size,
            "data": data,
            "seed": recipe.seed,
            "batch": recipe.batch,
            "schedule": asdict(self.schedule(part)),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "seconds": round(seconds),
            "command": f"python benchmarks/{self.name}/train.py{' --quick' if self.quick else ''}",
            "quick": self.quick,
            "scores": dict(scores),
        }

    def link_data(self) -> None:
        """Puts a link to the data beside the models, which is where settings look; nothing is copied."""
        link = self.output / "data"
        self.output.mkdir(parents=True, exist_ok=True)
        if link.is_symlink():
            link.unlink()
        link.symlink_to(self.data.resolve(), target_is_directory=True)


class LossLines:
    """Says a line every hundred steps: the mean loss since the last one."""

    def __init__(self, part: str, say: Callable[[str], None]) -> None:
        self.part, self.say, self.began = part, say, time.perf_counter()
        self.losses: list[float] = []

    def __call__(self, step: int, steps: int, loss: float) -> None:
        self.losses.append(loss)
        if step % 100 == 0 or step == steps:
            mean = sum(self.losses) / len(self.losses)
            self.say(f"{self.part} {step}/{steps}  loss {mean:.4f}  {time.perf_counter() - self.began:.0f} s")
            self.losses.clear()


def data_folder(given: Path | None, repository: Path) -> Path:
    """The data of the benchmarks: ``given``, else the environment's, else ``../shared/data`` beside the repository."""
    named = os.environ.get(DATA_VARIABLE)
    return given or (Path(named) if named else repository.parent / "shared" / "data")
