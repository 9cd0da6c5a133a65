"""The workshop of the bundled models: where they are made, with which pictures, and what their cards say."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffaudit.events import Event
from diffaudit.training import populations, recipes
from diffaudit.training.loop import fit
from diffaudit.training.pool import RenderedPool, rendered_pool

QUICK_DIVISOR = 250


@dataclass(frozen=True, eq=False)
class Workshop:
    """Where models are made: shipped ones in ``output/<name>``, all else in ``output/.work``.

    That is checkpoints, pictures, and the autoencoder and decoder that go into the prior. A quick workshop has a work
    folder of its own, so that its checkpoints are never gone on from.
    """

    output: Path
    quick: bool
    watch: Callable[[Event], None]

    @property
    def work(self) -> Path:
        return self.output / ".work" / "quick" if self.quick else self.output / ".work"

    def folder(self, name: str) -> Path:
        """Where the model ``name`` is written."""
        return (self.output if recipes.RECIPES[name].shipped else self.work) / name

    def finished(self, name: str) -> Path | None:
        """The folder that holds the model ``name``, scored and with its card; None where it is still to be made."""
        for folder in (self.output / name, self.work / name):
            card = folder / "card.json"
            # Until the scores are there a card is empty; what a quick workshop made counts for quick ones alone.
            if card.exists() and json.loads(card.read_text()).get("quick") in (False, self.quick):
                return folder
        return None

    def checkpoint(self, name: str) -> Path:
        return self.work / f"{name}.ck"

    @cached_property
    def public_pool(self) -> RenderedPool:
        """The pictures of the public identities that everything public is trained on."""
        identities = populations.public_identities()[: 64 if self.quick else None]
        cache = None if self.quick else self.work / "public.npy"
        return rendered_pool(identities, recipes.PER_IDENTITY, seed=111, cache=cache)

    def train(self, name: str, module: nn.Module, loss: Callable[[torch.Generator], Tensor]) -> float:
        """Fits ``module`` by the recipe of ``name``; returns the seconds."""
        recipe = recipes.RECIPES[name]
        schedule = recipe.schedule
        if self.quick:
            schedule = replace(schedule, steps=max(2, schedule.steps // QUICK_DIVISOR))
        return fit(
            module,
            loss,
            schedule,
            seed=recipe.seed,
            checkpoint=self.checkpoint(name),
            progress=lambda step, steps, value: self.watch(Event(name, step, steps, {"loss": value})),
        )

    def card(self, name: str, module: nn.Module, seconds: float, **scores: Any) -> dict[str, Any]:
        """What every card says: how the model was made, how long it took, what it scores."""
        recipe = recipes.RECIPES[name]
        return {
            "name": name,
            "kind": recipe.kind,
            "architecture": recipe.architecture,
            "size": recipes.SIZE,
            "data": "procedural faces rendered by diffaudit; no real person",
            "seed": recipe.seed,
            "batch": recipe.batch,
            "schedule": asdict(recipe.schedule),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "seconds": round(seconds),
            "command": f"diffaudit train {name}",
            "quick": self.quick,
            "scores": scores,
        }
