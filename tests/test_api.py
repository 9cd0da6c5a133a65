"""`diffaudit.invert` and `diffaudit.perturb` hand Python objects over; the work behind them is replaced."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

import diffaudit
from diffaudit import InversionSettings, PerturbationSettings, SettingsError, configurations
from diffaudit.settings import BundledModel, GivenModel


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    module = ModuleType("diffaudit.study.runner")

    def run_inversion(settings: InversionSettings, folder: Path, **others: Any) -> Path:
        made.append({"settings": settings, "folder": folder, **others})
        return folder

    vars(module)["run_inversion"] = run_inversion
    monkeypatch.setitem(sys.modules, "diffaudit.study.runner", module)
    monkeypatch.setattr(configurations, "configuration_folder", lambda: tmp_path)
    (tmp_path / "quick.yaml").write_text("name: quick\nseed: 5\n")
    return made


def test_by_default_it_is_the_quick_configuration(calls: list[dict[str, Any]]) -> None:
    assert diffaudit.invert() == Path("runs/quick")
    assert calls[0]["settings"] == InversionSettings(name="quick", seed=5)
    assert calls[0]["target"] is None


def test_settings_may_be_a_file_or_checked_already(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    assert diffaudit.invert(tmp_path / "quick.yaml", tmp_path / "run") == tmp_path / "run"
    assert diffaudit.invert(InversionSettings(name="mine"), "there") == Path("there")
    assert [call["settings"].name for call in calls] == ["quick", "mine"]


def test_a_python_object_takes_the_place_of_the_target(calls: list[dict[str, Any]]) -> None:
    model, before = nn.Linear(2, 3), InversionSettings()
    diffaudit.invert(before, target=model)
    assert calls[0]["target"] is model
    assert calls[0]["settings"].attack.target == GivenModel(name="Linear")
    assert isinstance(before.attack.target, BundledModel)
    assert calls[0]["settings"].judging == before.judging

    named = diffaudit.check_settings({"attack": {"target": {"kind": "given", "name": "mine", "size": 8}}})
    diffaudit.invert(named, target=model)
    assert calls[1]["settings"] == named


def test_faulty_settings_are_told(calls: list[dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("seed: x\n")
    with pytest.raises(SettingsError, match="`seed` should"):
        diffaudit.invert(tmp_path / "bad.yaml")
    assert calls == []


@pytest.fixture
def perturbed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    module = ModuleType("diffaudit.study.perturbation_runner")

    def run_perturbation(settings: PerturbationSettings, folder: Path, **others: Any) -> Path:
        made.append({"settings": settings, "folder": folder, **others})
        return folder

    vars(module)["run_perturbation"] = run_perturbation
    monkeypatch.setitem(sys.modules, "diffaudit.study.perturbation_runner", module)
    return made


def test_python_objects_take_the_place_of_models_in_every_role(perturbed: list[dict[str, Any]]) -> None:
    mine, other, akin = nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(2, 3)
    before = PerturbationSettings()
    diffaudit.perturb(before, surrogates={"mine": mine}, heldout={"other": other}, siblings={"akin": akin})
    (call,) = perturbed
    assert call["given"] == {"mine": mine, "other": other, "akin": akin}
    assert call["settings"].judging.siblings == {"akin": GivenModel(name="akin")}
    assert call["settings"].surrogates == {"mine": GivenModel(name="mine")}
    assert call["settings"].judging.heldout == {"other": GivenModel(name="other")}
    assert call["settings"].judging.defences == before.judging.defences
    diffaudit.perturb(before)
    assert (perturbed[1]["settings"], perturbed[1]["given"]) == (before, {})


def test_an_object_sees_pictures_of_the_size_that_the_settings_name(perturbed: list[dict[str, Any]]) -> None:
    """A network trained at 224 pixels must not be audited at another size without a word."""
    program = {"kind": "pt2", "path": "seen.pt2", "size": 224}
    judging = {"heldout": {"other": program | {"path": "unseen.pt2"}}}
    settings = PerturbationSettings.model_validate({"surrogates": {"mine": program}, "judging": judging})
    diffaudit.perturb(settings, surrogates={"mine": nn.Linear(2, 3)}, heldout={"other": nn.Linear(2, 3)})
    found = perturbed[0]["settings"]
    assert found.surrogates == {"mine": GivenModel(name="mine", size=224)}
    assert found.judging.heldout == {"other": GivenModel(name="other", size=224)}


def test_objects_must_fit_the_settings_they_go_into(perturbed: list[dict[str, Any]]) -> None:
    model = nn.Linear(2, 3)
    with pytest.raises(SettingsError, match="names of their own"):
        diffaudit.perturb(PerturbationSettings(), surrogates={"mixer": model})
    with pytest.raises(SettingsError, match="surrogates"):
        diffaudit.perturb(PerturbationSettings(), surrogates={})
    assert perturbed == []
