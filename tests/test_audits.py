"""A dry run: both sides are opened and tried, and nothing is attacked or written."""

from pathlib import Path
from typing import Any

import pytest

from diffaudit import build
from diffaudit.errors import InvalidSetting
from diffaudit.models.bundled import save_network
from diffaudit.models.networks import build_network
from diffaudit.settings import check_perturbation, check_settings


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def test_an_inversion_that_can_run_says_what_there_is(tiny_values: dict[str, Any]) -> None:
    found = build.check_audit(check_settings(tiny_values))
    assert found == "2 of 100 classes, 12 public and 4 private pictures, 2 judges"
    assert not list(Path().iterdir())


def test_an_inversions_judges_are_opened(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """The run opens them when the attack has ended; here there is none that could learn of them."""
    network = {"architecture": "plain", "outputs": 7, "size": 64}
    save_network(build_network("plain", 7), tmp_path / "seven", network)
    tiny_values["judging"]["classifiers"]["one"] = {"kind": "trained", "folder": str(tmp_path / "seven")}
    with pytest.raises(InvalidSetting, match=r"`judging.classifiers.one` should tell apart as many .*, 100. Found 7"):
        build.check_audit(check_settings(tiny_values))


def test_what_an_inversion_could_not_train_is_told(tiny_values: dict[str, Any]) -> None:
    tiny_values |= {"terms": {"cls": [{"kind": "top_k", "k": 100}]}}
    with pytest.raises(InvalidSetting, match=r"`terms.cls.k` should be at most 99"):
        build.check_audit(check_settings(tiny_values))


def test_a_perturbation_is_rehearsed() -> None:
    values: dict[str, Any] = {"images": {"kind": "faces", "count": 3}}
    found = build.check_audit(check_perturbation(values))
    assert found == "3 pictures, 10 classes, 3 surrogates, 2 held-out models, 0 siblings"
    assert not list(Path().iterdir())
    values["surrogates"] = {"people": {"kind": "bundled", "name": "target"}}
    with pytest.raises(InvalidSetting, match=r"`surrogates.people` should .*10"):
        build.check_audit(check_perturbation(values))
