"""The judges that no choice ever saw are asked about the files of a row; their votes take the place of the others."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from diffaudit.records import RunFolder, write_atomically
from diffaudit.study.pictures import save_pictures

from ..conftest import perturbed

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "perturbation" / "fresh_judges.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The benchmark as a module."""
    spec = importlib.util.spec_from_file_location("fresh_judges", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Tens(nn.Module):
    """Sees class ``n`` in an even picture of byte ``10 n``."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.one_hot((images.mean((1, 2, 3)) * 25.5).round().long(), 10).float()


def even(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)


def test_the_files_of_a_row_are_judged_anew(script: ModuleType, tmp_path: Path) -> None:
    """Of four pictures the third was wrong before, the fourth deserves another label: one success in three, or none."""
    folder = RunFolder(tmp_path)
    votes = {"not asked again": "rk"}
    records = [
        perturbed(0, votes, label=1, label_kept=True),
        perturbed(1, votes, label=2, label_kept=True),
        perturbed(2, votes, label=9, label_kept=True),
        perturbed(3, votes, label=4, label_kept=False),
        perturbed(0, votes, label=1, label_kept=True, row="other"),
    ]
    write_atomically(folder.records, "".join(one.to_json() + "\n" for one in records))
    save_pictures(folder.images / "clean", even(10, 20, 30, 40))
    save_pictures(folder.images / "attack", even(10, 20, 50, 50))
    found = script.judged_anew(folder, "attack", {"new": Tens()})
    assert [one.clean_hits for one in found] == [{"new": True}, {"new": True}, {"new": False}, {"new": True}]
    assert [one.predicted["new"] for one in found] == [1, 2, 5, 5]
    assert [one.fooled["new"] for one in found] == [False, False, True, True]
    success = script.share(found, ["new"])
    assert (success["value"], success["n"]) == (pytest.approx(1 / 3), 3)
    assert script.share(script.kept_only(found), ["new"])["value"] == 0


def test_the_judges_have_an_answer_for_every_label(script: ModuleType) -> None:
    for make, _, _ in script.RECIPES.values():
        assert make()(torch.rand(2, 3, 64, 64)).shape == (2, 10)


def test_a_judge_that_was_trained_is_read_and_not_trained_again(script: ModuleType, tmp_path: Path) -> None:
    network = script.WideKernels()
    script.save_file(network.state_dict(), tmp_path / "wide-kernels.safetensors")
    again = script.trained("wide-kernels", tmp_path)
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images), network.eval()(images))
