"""The training loop of the bundled models: what it averages, and that a stop leaves no trace."""

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.training.loop import Schedule, fit

SCHEDULE = Schedule(steps=7, rate=0.05, warmup=2, average=0.9)


def small() -> nn.Module:
    """With batch norm: its running means are averaged, its counter is not."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))


def loss_of(module: nn.Module) -> Callable[[torch.Generator], Tensor]:
    def loss(generator: torch.Generator) -> Tensor:
        images = torch.randn(8, 3, generator=generator)
        error: Tensor = module(images)[:, 0] - images.sum(1)
        return error.square().mean()

    return loss


def equal(first: nn.Module, second: nn.Module) -> bool:
    one, other = first.state_dict(), second.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


class PowerCutError(Exception):
    pass


def cut_at(moment: int) -> Callable[[int, int, float], None]:
    def progress(step: int, _: int, __: float) -> None:
        if step == moment:
            raise PowerCutError

    return progress


@pytest.mark.parametrize("moment", [1, 3, 4, 6])
def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path, moment: int) -> None:
    whole = small()
    fit(whole, loss_of(whole), SCHEDULE, seed=3)
    stopped, path = small(), tmp_path / "work" / "x.ck"
    with pytest.raises(PowerCutError):
        fit(stopped, loss_of(stopped), SCHEDULE, seed=3, checkpoint=path, every=2, progress=cut_at(moment))
    assert path.exists() == (moment > 2)
    resumed = small()
    fit(resumed, loss_of(resumed), SCHEDULE, seed=3, checkpoint=path, every=2)
    assert equal(resumed, whole)
    assert not equal(whole, small())


def test_another_seed_trains_another_module() -> None:
    one, other = small(), small()
    fit(one, loss_of(one), SCHEDULE, seed=1)
    fit(other, loss_of(other), SCHEDULE, seed=2)
    assert not equal(one, other)


@pytest.mark.parametrize("every", [7, 3, 500])
def test_a_finished_training_takes_no_further_step(tmp_path: Path, every: int) -> None:
    """Whether or not the number of steps is a multiple of the steps between checkpoints."""
    path = tmp_path / "x.ck"
    first = small()
    seconds = fit(first, loss_of(first), SCHEDULE, seed=3, checkpoint=path, every=every)

    def never(_: torch.Generator) -> Tensor:
        raise AssertionError("a step was taken")

    again = small()
    assert fit(again, never, SCHEDULE, seed=3, checkpoint=path, every=every) == pytest.approx(seconds, abs=0.5)
    assert equal(again, first)
    assert not again.training


def test_seconds_of_earlier_tries_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr("diffaudit.training.loop.time.perf_counter", lambda: next(clock))
    module, path = small(), tmp_path / "x.ck"
    # The clock ticks 10 s at each reading: at the start, at each checkpoint, at the end.
    assert fit(module, loss_of(module), replace(SCHEDULE, steps=2), seed=0, checkpoint=path, every=2) == 20
    module = small()
    assert fit(module, loss_of(module), replace(SCHEDULE, steps=4), seed=0, checkpoint=path, every=2) == 10 + 20


def test_a_checkpoint_of_a_longer_schedule_is_refused(tmp_path: Path) -> None:
    module, path = small(), tmp_path / "x.ck"
    fit(module, loss_of(module), SCHEDULE, seed=0, checkpoint=path)
    with pytest.raises(InvalidSetting, match=r"at most 5 steps along. Found 7"):
        fit(module, loss_of(module), replace(SCHEDULE, steps=5), seed=0, checkpoint=path)


def test_a_checkpoint_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, path = small(), tmp_path / "x.ck"
    fit(module, loss_of(module), replace(SCHEDULE, steps=2), seed=0, checkpoint=path)
    kept = tmp_path / "kept"
    shutil.copy(path, kept)

    def fail(tensors: dict[str, Tensor], target: Path, **_: object) -> None:
        target.write_bytes(b"half a fi")
        raise OSError("disk full")

    monkeypatch.setattr("diffaudit.training.loop.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        fit(module, loss_of(module), SCHEDULE, seed=0, checkpoint=path)
    assert path.read_bytes() == kept.read_bytes()


def test_the_average_by_hand() -> None:
    """Decay min(average, (1 + n) / (10 + n)): a tenth after the first step, so that the start is soon forgotten."""
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    seen: list[float] = []

    def loss(_: torch.Generator) -> Tensor:
        seen.append(float(module.weight.detach()))
        return module.weight.sum()

    plan = Schedule(steps=3, rate=0.1, warmup=0, weight_decay=0.0, average=0.15)
    fit(module, loss, plan, seed=0)
    last = seen[2] - plan.rate_at(2)  # Adam's step under a constant gradient is the rate
    expected = 1.0
    for decay, value in ((0.1, seen[1]), (0.15, seen[2]), (0.15, last)):
        expected = decay * expected + (1 - decay) * value
    assert float(module.weight.detach()) == pytest.approx(expected, abs=1e-6)


def test_without_an_average_the_last_weights_stay() -> None:
    module = nn.Linear(1, 1, bias=False)
    nn.init.ones_(module.weight)
    plan = Schedule(steps=2, rate=0.1, warmup=0, weight_decay=0.0)
    fit(module, lambda _: module.weight.sum(), plan, seed=0)
    assert float(module.weight.detach()) == pytest.approx(1 - 0.1 - plan.rate_at(1), abs=1e-6)


def test_running_means_are_averaged_and_counters_are_not() -> None:
    module = small()
    fit(module, loss_of(module), SCHEDULE, seed=0)
    assert module.state_dict()["1.num_batches_tracked"] == SCHEDULE.steps
    plain = small()
    fit(plain, loss_of(plain), replace(SCHEDULE, average=0.0), seed=0)
    assert not torch.equal(module.state_dict()["1.running_mean"], plain.state_dict()["1.running_mean"])


def test_the_rate_by_hand() -> None:
    plan = Schedule(steps=10, rate=2.0, warmup=2)
    assert [plan.rate_at(step) for step in (0, 1, 2)] == [1.0, 2.0, 2.0]
    assert plan.rate_at(6) == pytest.approx(1.0)
    assert plan.rate_at(9) == pytest.approx(1 + math.cos(7 / 8 * math.pi))


def test_frozen_parts_stay() -> None:
    module = small()
    module.get_submodule("0").requires_grad_(False)
    before = module.state_dict()["0.weight"].clone()
    fit(module, loss_of(module), SCHEDULE, seed=0)
    assert torch.equal(module.state_dict()["0.weight"], before)
