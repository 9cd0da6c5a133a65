"""Progress as lines and as bars, by a clock of the test's own."""

import io

import pytest
from rich.console import Console

from diffaudit.events import Event
from diffaudit.progress import RunProgress


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_lines_come_at_stage_changes_messages_and_now_and_then(clock: Clock) -> None:
    page = io.StringIO()
    with RunProgress(Console(file=page, width=20), interval=5.0, clock=clock) as progress:
        progress.update(Event("load", 0, 0, {}))
        for step in range(1, 41):
            clock.now += 1.0
            progress.update(Event("adapt", step, 40, {"cls": 1 / step, "id": 2.0}))
        progress.update(Event("judge", 0, 0, {}, "80 images [bold]"))
    lines = page.getvalue().splitlines()
    assert lines[0] == "load"
    assert lines[1] == "adapt 1/40  cls 1  id 2"
    assert lines[2] == "adapt 6/40  cls 0.167  id 2  34 s left"
    assert [line.split()[1] for line in lines[2:9]] == ["6/40", "11/40", "16/40", "21/40", "26/40", "31/40", "36/40"]
    assert lines[9] == "adapt 40/40  cls 0.025  id 2"
    assert lines[10:] == ["judge  80 images [bold]"]


def test_time_left_counts_from_where_a_run_goes_on(clock: Clock) -> None:
    page = io.StringIO()
    progress = RunProgress(Console(file=page, width=80), interval=0.0, clock=clock)
    progress.update(Event("adapt", 900, 1000, {}, "continues from step 900"))
    clock.now += 20.0
    progress.update(Event("adapt", 910, 1000, {}))
    assert page.getvalue().splitlines() == [
        "adapt 900/1000  continues from step 900",
        "adapt 910/1000  3 min 0 s left",
    ]


def test_a_terminal_gets_bars(clock: Clock) -> None:
    page = io.StringIO()
    console = Console(file=page, force_terminal=True, width=100, color_system=None)
    with RunProgress(console, clock=clock) as progress:
        progress.update(Event("load", 0, 0, {}))
        progress.update(Event("embed", 1, 2, {"cls": 0.5}))
        progress.update(Event("embed", 2, 2, {"cls": 0.25}, "a [message]"))
        progress.update(Event("sample", 1, 8, {}))
    last = page.getvalue().rpartition("embed")[2]
    assert "embed: a [message]" in page.getvalue()
    assert "2/2" in last
    assert "cls 0.25" in last
    assert "1/8" in last
    assert "load" not in page.getvalue().rpartition("a [message]")[2].rpartition("embed")[2]
