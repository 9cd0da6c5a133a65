"""How a long job shows on a screen: a live bar on a terminal, a line now and then anywhere else."""

import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from diffaudit.events import Event


class RunProgress:
    """Shows the stage, the step, the loss terms and the time left in the stage; :meth:`update` is the callback.

    The console is stderr's if none is given. Where it is no terminal it prints whole lines instead:
    at a stage's first and last step, at messages, and else at most once in ``interval`` seconds of ``clock``.
    """

    def __init__(
        self, console: Console | None = None, *, interval: float = 5.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or Console(stderr=True)
        self._interval = interval
        self._clock = clock
        self._stage = ""
        self._began = (0, 0.0)  # step and time of the stage's first event: a run that goes on does not start at 0
        self._shown = 0.0
        self._task: TaskID | None = None
        self._bars = Progress(
            TextColumn("{task.description:>10}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[parts]}", markup=False),
            console=self._console,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def update(self, event: Event) -> None:
        """Shows ``event``."""
        begins = event.stage != self._stage
        if begins:
            self._stage, self._began = event.stage, (event.step, self._clock())
        if self._console.is_terminal:
            self._draw(event, begins)
        else:
            self._print(event, begins)

    def _draw(self, event: Event, begins: bool) -> None:
        if event.message:
            self._line(f"{event.stage}: {event.message}")
        if begins or self._task is None:
            self._close_task()
            self._task = self._bars.add_task(event.stage, total=event.steps or None, parts="")
        self._bars.update(
            self._task, completed=event.step, total=event.steps or None, parts=parts_in_words(event.parts)
        )

    def _close_task(self) -> None:
        """Takes away the stage before, if nobody knew how long it was: its bar would move for ever."""
        for task in self._bars.tasks:
            if task.total is None:
                self._bars.remove_task(task.id)

    def _print(self, event: Event, begins: bool) -> None:
        now = self._clock()
        ends = 0 < event.steps == event.step
        if not (begins or ends or event.message or now - self._shown >= self._interval):
            return
        self._shown = now
        words = [f"{event.stage} {event.step}/{event.steps}" if event.steps else event.stage]
        words += [parts_in_words(event.parts), event.message]
        first, since = self._began
        if event.step > first and not ends and event.steps:
            left = (now - since) / (event.step - first) * (event.steps - event.step)
            words.append(f"{seconds_in_words(left)} left")
        self._line("  ".join(word for word in words if word))

    def _line(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, markup=False, highlight=False)


def parts_in_words(parts: dict[str, float]) -> str:
    """Loss terms on one line.

    >>> parts_in_words({"cls": 0.51234, "id": 12.5})
    'cls 0.512  id 12.5'
    """
    return "  ".join(f"{name} {value:.3g}" for name, value in parts.items())


def seconds_in_words(seconds: float) -> str:
    """A duration as one reads it.

    >>> seconds_in_words(8.2), seconds_in_words(75), seconds_in_words(7260)
    ('8 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
