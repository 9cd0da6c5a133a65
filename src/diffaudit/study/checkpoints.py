"""What a run has made, on disk: safetensors with a JSON header, written under another name and renamed."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

SECONDS = "seconds"
"""Beside what was made once: how long that took."""


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state after ``step`` steps: parameters by name and the optimiser's moments by parameter number."""

    step: int
    tensors: dict[str, Tensor]
    moments: dict[int, dict[str, Tensor]]

    def restore(self, optimiser: torch.optim.Optimizer) -> None:
        """Gives the optimiser the moments back."""
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": self.moments, "param_groups": groups})


def save_checkpoint(path: Path, *, step: int, tensors: dict[str, Tensor], optimiser: torch.optim.Optimizer) -> None:
    """Writes a checkpoint; the one that was there stays whole until the new one is."""
    everything = {f"parameter/{name}": value for name, value in tensors.items()}
    for index, state in optimiser.state_dict()["state"].items():
        everything |= {f"moment/{index}/{name}": torch.as_tensor(value) for name, value in state.items()}
    save_tensors(path, everything, header={"step": step})


def load_checkpoint(path: Path) -> Checkpoint | None:
    """The checkpoint, or None where there is none yet."""
    everything = load_tensors(path)
    if everything is None:
        return None
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["header"])
    tensors: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    for key, value in everything.items():
        kind, name = key.split("/", 1)
        if kind == "parameter":
            tensors[name] = value
        else:
            index, moment = name.split("/", 1)
            moments.setdefault(int(index), {})[moment] = value
    return Checkpoint(int(header["step"]), tensors, moments)


def save_tensors(path: Path, tensors: dict[str, Tensor], *, header: dict[str, int] | None = None) -> None:
    """Writes tensors by name, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    values = {name: value.detach().clone().contiguous() for name, value in tensors.items()}
    save_file(values, partial, metadata={"header": json.dumps(header or {})})
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    partial.replace(path)


def load_tensors(path: Path) -> dict[str, Tensor] | None:
    """Tensors by name, or None where the file does not exist."""
    return load_file(path) if path.exists() else None


def made_once(path: Path, make: Callable[[], dict[str, Tensor]]) -> tuple[dict[str, Tensor], float]:
    """Tensors by name, and the seconds that making them took, in this try or in the one that left them at ``path``."""
    found = load_tensors(path)
    if found is None:
        began = time.perf_counter()
        found = make()
        found |= {SECONDS: torch.tensor(time.perf_counter() - began, dtype=torch.float64)}
        save_tensors(path, found)
    return {name: value for name, value in found.items() if name != SECONDS}, float(found[SECONDS])
