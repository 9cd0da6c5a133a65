"""Training states on disk: whole or absent, and what goes on from them does not know that it was stopped."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffaudit.study.checkpoints import load_checkpoint, load_tensors, save_checkpoint, save_tensors


def step(parameter: nn.Parameter, optimiser: torch.optim.Optimizer, number: int) -> None:
    parameter.grad = torch.full_like(parameter, 1.0 + number)
    optimiser.step()


def adam(parameter: nn.Parameter) -> torch.optim.AdamW:
    return torch.optim.AdamW([{"params": [parameter], "base_rate": 0.1}], lr=0.1)


def after(parameter: nn.Parameter) -> Tensor:
    return parameter.detach().clone()


def test_a_restored_optimiser_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    whole = nn.Parameter(torch.arange(3.0))
    optimiser = adam(whole)
    for number in range(2):
        step(whole, optimiser, number)
    save_checkpoint(tmp_path / "deep" / "c.safetensors", step=2, tensors={"p.0": whole}, optimiser=optimiser)
    step(whole, optimiser, 2)

    saved = load_checkpoint(tmp_path / "deep" / "c.safetensors")
    assert saved is not None
    assert saved.step == 2
    resumed = nn.Parameter(saved.tensors["p.0"])
    other = adam(resumed)
    other.param_groups[0]["lr"] = 0.05  # the loop's, not the checkpoint's: it sets a rate at each step
    saved.restore(other)
    assert other.param_groups[0]["lr"] == 0.05
    assert other.param_groups[0]["base_rate"] == 0.1
    other.param_groups[0]["lr"] = 0.1
    step(resumed, other, 2)
    assert torch.equal(after(resumed), after(whole))

    forgetful = nn.Parameter(saved.tensors["p.0"].clone())
    step(forgetful, adam(forgetful), 2)
    assert not torch.equal(after(forgetful), after(whole))


def test_no_file_is_no_checkpoint(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path / "none") is None
    assert load_tensors(tmp_path / "none") is None


def test_names_may_hold_slashes_and_dots(tmp_path: Path) -> None:
    parameter = nn.Parameter(torch.ones(1))
    save_checkpoint(tmp_path / "c", step=0, tensors={"lora/a.b": torch.eye(2)}, optimiser=adam(parameter))
    saved = load_checkpoint(tmp_path / "c")
    assert saved is not None
    assert torch.equal(saved.tensors["lora/a.b"], torch.eye(2))
    assert saved.moments == {}


def test_what_was_there_stays_whole_until_the_new_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"x": torch.zeros(2)})

    def fail(*_: object, **__: object) -> None:
        path.with_name("t.safetensors.partial").write_bytes(b"half a fi")
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr("diffaudit.study.checkpoints.save_file", fail)
        with pytest.raises(OSError, match="disk full"):
            save_tensors(path, {"x": torch.ones(2)})
    found = load_tensors(path)
    assert found is not None
    assert found["x"].tolist() == [0, 0]
    save_tensors(path, {"x": torch.ones(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["t.safetensors"]


def test_views_and_shared_storage_are_saved_as_they_read(tmp_path: Path) -> None:
    """Safetensors refuses tensors that share memory; rows of one table do."""
    table = torch.arange(6.0).view(2, 3)
    save_tensors(tmp_path / "t", {"row": table[0], "column": table[:, 1], "again": table[0]})
    found = load_tensors(tmp_path / "t")
    assert found is not None
    assert (found["row"].tolist(), found["column"].tolist()) == ([0, 1, 2], [1, 4])
    assert torch.equal(found["row"], found["again"])
