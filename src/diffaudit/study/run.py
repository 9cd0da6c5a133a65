"""What the parts of a run share: its settings, its folder, who watches, and the seconds of each part."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from diffaudit.events import Event
from diffaudit.records import RunFolder
from diffaudit.settings import InversionSettings

Watcher = Callable[[Event], None]


@dataclass(eq=False)
class Run:
    """An inversion under way."""

    settings: InversionSettings
    folder: RunFolder
    watch: Watcher
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time of a block to ``seconds[part]``."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began
