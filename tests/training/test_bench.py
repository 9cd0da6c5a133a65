"""A benchmark's bench: trials are short, what is finished has a card, data are linked and not copied."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffaudit.models.bundled import write_card
from diffaudit.training.bench import QUICK_DIVISOR, Bench, LossLines, Recipe, data_folder
from diffaudit.training.loop import Schedule

STEPS = 3 * QUICK_DIVISOR


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def bench(tmp_path: Path, said: list[str]) -> Bench:
    (tmp_path / "photographs").mkdir()
    recipes = {"line": Recipe(3, 2, Schedule(steps=STEPS, rate=0.1))}
    return Bench("toy", tmp_path / "photographs", tmp_path / "models", recipes, True, said.append)


def test_a_trial_is_short_goes_on_and_says_so(bench: Bench, said: list[str]) -> None:
    module = nn.Linear(1, 1)
    calls = 0

    def loss(generator: torch.Generator) -> Tensor:
        nonlocal calls
        calls += 1
        outputs: Tensor = module(torch.rand(2, 1, generator=generator))
        return outputs.square().mean()

    seconds = bench.train("line", module, loss)
    assert calls == 3
    assert said[-1].startswith("line 3/3  loss ")
    bench.train("line", module, loss)
    assert calls == 3  # finished, as its checkpoint says
    card = bench.card("line", module, seconds, architecture="Linear", size=1, data="numbers", scores={"error": 0.1})
    assert (card["name"], card["command"]) == ("toy-line", "python benchmarks/toy/train.py --quick")
    assert (card["parameters"], card["schedule"]["steps"], card["scores"]) == (2, 3, {"error": 0.1})
    assert not bench.finished("line")
    write_card(bench.output / "line", card)
    assert bench.finished("line")


def test_the_mean_loss_is_said_every_hundred_steps(said: list[str]) -> None:
    lines = LossLines("part", said.append)
    for step in range(1, 151):
        lines(step, 150, float(step))
    assert [line.split("  ")[:2] for line in said] == [
        ["part 100/150", "loss 50.5000"],
        ["part 150/150", "loss 125.5000"],
    ]


def test_data_are_linked(bench: Bench) -> None:
    (bench.data / "a.txt").write_text("a")
    bench.link_data()
    bench.link_data()
    assert (bench.output / "data").is_symlink()
    assert (bench.output / "data" / "a.txt").read_text() == "a"


def test_the_data_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DIFFAUDIT_SHARED_DATA", raising=False)
    assert data_folder(None, Path("/code/repository")) == Path("/code/shared/data")
    monkeypatch.setenv("DIFFAUDIT_SHARED_DATA", "elsewhere")
    assert data_folder(None, Path("/code/repository")) == Path("elsewhere")
    assert data_folder(Path("given"), Path("/code/repository")) == Path("given")
