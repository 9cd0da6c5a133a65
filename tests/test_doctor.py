"""The doctor's findings, from machines that are ill in known ways."""

import json
import shutil
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from diffaudit import doctor
from diffaudit.cli import app
from diffaudit.doctor import Finding, is_sound

PROJECT = Path(__file__).parents[1] / "pyproject.toml"


class Usage(NamedTuple):
    free: int


def versions(monkeypatch: pytest.MonkeyPatch, **known: str | None) -> None:
    monkeypatch.setattr(doctor, "installed_version", lambda package: known.get(package))


def test_the_lists_are_those_of_the_project() -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    assert dict(line.split(">=") for line in project["dependencies"]) == doctor.CORE
    extras = {name: lines for name, lines in project["optional-dependencies"].items() if name != "dev"}
    assert set(extras) == set(doctor.EXTRAS)
    for name, lines in extras.items():
        assert tuple(line.split(">=")[0].split("[")[0] for line in lines) == doctor.EXTRAS[name]
    assert project["requires-python"] == f">={doctor.PYTHON[0]}.{doctor.PYTHON[1]}"


def test_python() -> None:
    assert doctor.python_version((3, 11, 0)).state == "ok"
    assert doctor.python_version((4, 0, 0)).state == "ok"
    assert doctor.python_version((3, 10, 9)) == Finding(
        "python", "broken", "3.10.9, older than 3.11", "Use Python 3.11 or newer.", core=True
    )


def test_a_dependency(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.dependency("numpy", "2.0") == Finding("numpy", "ok", metadata.version("numpy"), core=True)
    assert doctor.dependency("pillow", "11.0").state == "ok"
    absent = doctor.dependency("no-such-package", "1.2")
    assert absent == Finding(
        "no-such-package", "missing", "not installed", 'pip install "no-such-package>=1.2"', core=True
    )
    versions(monkeypatch, numpy="1.26.4", ghost="3.0")
    assert doctor.dependency("numpy", "2.0").detail == "1.26.4, older than 2.0"
    assert doctor.dependency("ghost", "2.0").detail == "3.0, but its module ghost is not found"
    assert doctor.dependency("ghost", "2.0").state == "broken"


@pytest.mark.parametrize(
    ("version", "numbers"),
    [("2.13.0+cpu", (2, 13)), ("2.0", (2,)), ("2", (2,)), ("0.14.4rc1", (0, 14, 4)), ("5.10", (5, 10)), ("x", ())],
)
def test_release(version: str, numbers: tuple[int, ...]) -> None:
    assert doctor.release(version) == numbers


def test_the_torch_build(monkeypatch: pytest.MonkeyPatch) -> None:
    good = doctor.torch_build()
    assert (good.state, good.core) == ("ok", True)
    assert good.detail.startswith(metadata.version("torch"))

    def unloadable(name: str) -> Any:
        raise OSError(f"lib{name}.so: cannot open\nand more")

    monkeypatch.setattr(doctor, "import_module", unloadable)
    bad = doctor.torch_build()
    assert (bad.state, bad.detail) == ("broken", "does not load: libtorch.so: cannot open")


def test_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.extra("datasets", ("scikit-learn",)).state == "ok"
    monkeypatch.setattr(doctor, "importable", lambda package: True)
    versions(monkeypatch, **{"efficientnet-lite-pytorch": "0.1.0"})
    finding = doctor.extra("imagenet", ("efficientnet-lite-pytorch", "scikit-learn"))
    assert finding == Finding("extra imagenet", "missing", "without scikit-learn", 'pip install "diffaudit[imagenet]"')
    assert not finding.core


@pytest.mark.parametrize(
    ("requirement", "torch", "state"),
    [
        ("torch==2.13.0", "2.13.0+cpu", "ok"),
        ("torch (==2.13.0)", "2.13.0", "ok"),
        ("torch==2.12.1", "2.13.0+cpu", "broken"),
        ("torch>=2", "2.13.0", "ok"),
    ],
)
def test_a_torchvision_of_another_torch(
    monkeypatch: pytest.MonkeyPatch, requirement: str, torch: str, state: str
) -> None:
    versions(monkeypatch, torch=torch, torchvision="0.28.0")
    monkeypatch.setattr(metadata, "requires", lambda package: ["numpy", requirement])
    finding = doctor.torchvision_match()
    assert finding.state == state
    assert not finding.core
    if state == "broken":
        assert finding.detail == "0.28.0 was built for torch 2.12.1, not 2.13.0+cpu"
        assert "pip uninstall torchvision" in finding.remedy


def test_no_torchvision_is_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    versions(monkeypatch, torch="2.13.0")
    assert doctor.torchvision_match().state == "ok"


def test_bundled_models(tmp_path: Path) -> None:
    assert doctor.bundled_model("target", tmp_path).state == "missing"
    folder = tmp_path / "target"
    folder.mkdir()
    save_file({"weight": np.ones((3, 4), dtype=np.float16)}, folder / "model.safetensors", metadata={"format": "np"})
    assert "no card.json" in doctor.bundled_model("target", tmp_path).detail
    (folder / "card.json").write_text("{}")
    whole = doctor.bundled_model("target", tmp_path)
    assert (whole.state, whole.core) == ("ok", True)

    shutil.move(folder / "model.safetensors", folder / "unet.safetensors")
    (folder / "unet").mkdir()
    shutil.move(folder / "unet.safetensors", folder / "unet" / "model.safetensors")  # as a pipeline lies
    assert doctor.bundled_model("target", tmp_path).state == "ok"


@pytest.mark.parametrize("kept", [0, 7, 8, 30, -1])
def test_weights_that_are_cut(tmp_path: Path, kept: int) -> None:
    save_file({"weight": np.ones(5)}, tmp_path / "a.safetensors")
    content = (tmp_path / "a.safetensors").read_bytes()
    assert doctor.is_whole(tmp_path / "a.safetensors")
    (tmp_path / "a.safetensors").write_bytes(content[:kept])
    assert not doctor.is_whole(tmp_path / "a.safetensors")


def test_weights_that_are_something_else(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 123\n")
    assert not doctor.is_whole(file)
    file.write_bytes((5).to_bytes(8, "little") + b"words")
    assert not doctor.is_whole(file)
    empty = json.dumps({}).encode()
    file.write_bytes(len(empty).to_bytes(8, "little") + empty)
    assert doctor.is_whole(file)


def test_the_bundled_names_are_those_of_the_default_settings() -> None:
    names = doctor.bundled_names()
    assert len(names) == len(set(names))
    assert set(names) == {
        "target", "prior", "identity", "attributes",
        "judge-plain", "judge-depthwise", "judge-identity", "judge-factors",
    }  # fmt: skip


def test_disk_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(3 * 1024**3))
    assert doctor.disk_space(tmp_path) == Finding("disk", "ok", f"3.0 GiB free in {tmp_path}")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(1024**2))
    assert doctor.disk_space(tmp_path).state == "broken"


def test_only_core_things_make_it_unsound() -> None:
    good = Finding("numpy", "ok", "2.0", core=True)
    assert is_sound([good, Finding("extra timm", "missing", ""), Finding("torchvision build", "broken", "")])
    assert not is_sound([good, Finding("scipy", "missing", "", core=True)])
    assert not is_sound([good, Finding("scipy", "broken", "", core=True)])


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("missing", 1), ("broken", 1)])
def test_the_command(monkeypatch: pytest.MonkeyPatch, state: doctor.State, code: int) -> None:
    remedy = "" if state == "ok" else 'pip install "scipy[all]>=1.14"  # ' + "long " * 40
    findings = [Finding("scipy", state, "as [found]", remedy, core=True)]
    monkeypatch.setattr(doctor, "examine", lambda: findings)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == code
    assert "as [found]" in result.stdout
    assert (f"scipy: {remedy}\n" in result.stdout) == bool(remedy)  # on one line, to be copied


def test_everything_is_looked_at() -> None:
    names = {finding.name for finding in doctor.examine()}
    assert {"python", "torch build", "disk", "torchvision build", "model prior", "extra timm", *doctor.CORE} <= names
