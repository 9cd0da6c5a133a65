"""What the parts of a run share: its settings, its folder, who watches, the seconds of each part, its arithmetic."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic

import torch

from diffaudit.events import Event
from diffaudit.records import RunFolder
from diffaudit.settings import AuditSettings, InversionSettings, Kind, PerturbationSettings

Watcher = Callable[[Event], None]


@dataclass(eq=False)
class Run(Generic[Kind]):
    """An audit under way."""

    settings: Kind
    folder: RunFolder
    watch: Watcher
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time of a block to ``seconds[part]``."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began

    def spent(self) -> dict[str, float]:
        """Seconds by part; where an earlier try has finished, those that it wrote down."""
        path = self.folder.metrics
        if path.exists():
            earlier: dict[str, float] = json.loads(path.read_text(encoding="utf-8"))["seconds"]
            return earlier
        return {name: round(value, 2) for name, value in self.seconds.items()}


InversionRun = Run[InversionSettings]
PerturbationRun = Run[PerturbationSettings]


@contextmanager
def reproducible(settings: AuditSettings) -> Iterator[None]:
    """Deterministic algorithms and the thread count asked for, while the block runs.

    With deterministic algorithms PyTorch also fills every new tensor, to show up those who read one before writing it.
    Nobody here does, and the filling took a tenth of a perturbation's time.
    """
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    memory = torch.utils.deterministic
    filling: bool = memory.fill_uninitialized_memory  # type: ignore[attr-defined]
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        memory.fill_uninitialized_memory = filling  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)
