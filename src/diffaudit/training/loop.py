"""The one training loop of the bundled models: seeded, resumable to the same bits, with averaged weights."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting

Progress = Callable[[int, int, float], None]
"""Called as ``progress(step, steps, loss)``."""


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: AdamW, linear warm-up over ``warmup`` steps, then cosine decay to zero."""

    steps: int
    rate: float
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    average: float = 0.0
    """Decay of the exponential moving average of the weights; 0 keeps the last ones."""

    def rate_at(self, step: int) -> float:
        """Learning rate of ``step``.

        >>> Schedule(steps=100, rate=1.0, warmup=10).rate_at(9)
        1.0
        """
        if step < self.warmup:
            return self.rate * (step + 1) / self.warmup
        share = (step - self.warmup) / max(1, self.steps - self.warmup)
        return self.rate * 0.5 * (1 + math.cos(math.pi * share))


def fit(
    module: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    schedule: Schedule,
    *,
    seed: int,
    checkpoint: Path | None = None,
    every: int = 500,
    progress: Progress | None = None,
) -> float:
    """Trains ``module`` in place on ``loss(generator) -> ()`` and returns the seconds spent, earlier tries included.

    Step ``i`` draws from a generator seeded by ``(seed, i)`` alone, so a run that is stopped and started again with
    the same ``checkpoint`` goes on as if nothing had happened, and one that had finished takes no further step. At the
    end the module holds the averaged weights.

    Raises:
        InvalidSetting: the checkpoint is of a longer schedule.
    """
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=schedule.rate, weight_decay=schedule.weight_decay, fused=True)
    averaged = {name: value.detach().clone() for name, value in module.state_dict().items()}
    first, seconds = _restore(checkpoint, module, optimiser, averaged)
    if first > schedule.steps:
        raise InvalidSetting("checkpoint", f"be at most {schedule.steps} steps along", first, f"Delete {checkpoint}.")
    started = time.perf_counter()
    module.train()
    for step in range(first, schedule.steps):
        for group in optimiser.param_groups:
            group["lr"] = schedule.rate_at(step)
        value = loss(torch.Generator().manual_seed(seed * 1_000_003 + step))
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(parameters, schedule.clip)
        optimiser.step()
        _average(averaged, module, min(schedule.average, (1 + step) / (10 + step)) if schedule.average else 0.0)
        if progress is not None:
            progress(step + 1, schedule.steps, float(value.detach()))
        if checkpoint is not None and ((step + 1) % every == 0 or step + 1 == schedule.steps):
            _save(checkpoint, module, optimiser, averaged, step + 1, seconds + time.perf_counter() - started)
    module.load_state_dict(averaged)
    module.eval()
    return seconds + time.perf_counter() - started


@torch.no_grad()
def _average(averaged: dict[str, Tensor], module: nn.Module, decay: float) -> None:
    current = module.state_dict()
    moving = [name for name, value in current.items() if decay and value.is_floating_point()]
    if moving:
        torch._foreach_lerp_([averaged[name] for name in moving], [current[name] for name in moving], 1 - decay)
    for name in current.keys() - set(moving):
        averaged[name].copy_(current[name])


def _save(
    path: Path,
    module: nn.Module,
    optimiser: torch.optim.Optimizer,
    averaged: dict[str, Tensor],
    step: int,
    seconds: float,
) -> None:
    tensors = {f"module.{name}": value for name, value in module.state_dict().items()}
    tensors |= {f"averaged.{name}": value for name, value in averaged.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": torch.as_tensor(value) for name, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(
        {name: value.detach().clone().contiguous() for name, value in tensors.items()},
        partial,
        metadata={"state": json.dumps({"step": step, "seconds": seconds})},
    )
    partial.replace(path)


def _restore(
    path: Path | None, module: nn.Module, optimiser: torch.optim.Optimizer, averaged: dict[str, Tensor]
) -> tuple[int, float]:
    if path is None or not path.exists():
        return 0, 0.0
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["state"])
    groups: dict[str, dict[str, Tensor]] = {"module": {}, "averaged": {}, "optimiser": {}}
    for key, value in load_file(path).items():
        group, name = key.split(".", 1)
        groups[group][name] = value
    module.load_state_dict(groups["module"])
    averaged.update(groups["averaged"])
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in groups["optimiser"].items():
        index, name = key.split(".", 1)
        moments.setdefault(int(index), {})[name] = value
    optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    return int(header["step"]), float(header["seconds"])
