"""What a folder keeps is gone on with under the same settings, models and pictures alone."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from diffaudit.configurations import settings_path
from diffaudit.errors import RunConflict
from diffaudit.records import RunFolder
from diffaudit.settings import PerturbationSettings, dump_settings, load_settings
from diffaudit.study.manifest import begin_manifest, hold, may_be_taken
from diffaudit.study.run import InversionRun

MODELS, DATA = {"target": "one", "prior": "two"}, {"public": "three"}
HELD = PerturbationSettings.model_validate({"name": "mine"})
JUDGED_OTHERWISE = HELD.model_copy(update={"judging": HELD.judging.model_copy(update={"rebuilt": False})})
LONGER = HELD.model_copy(update={"budget": HELD.budget.model_copy(update={"iterations": 7})})


def tried(folder: Path, models: Mapping[str, str] = MODELS, data: Mapping[str, str] = DATA) -> dict[str, Any]:
    """A try that opens these, and what is in the manifest afterwards."""
    run = InversionRun(load_settings(settings_path("quick")), RunFolder(folder), lambda event: None)
    manifest = begin_manifest(run, "test", has=(), has_not=())
    hold(run, manifest, models, data)
    written: dict[str, Any] = json.loads(run.folder.manifest.read_text())
    return written


def keep(folder: Path) -> None:
    checkpoints = RunFolder(folder).checkpoints
    checkpoints.mkdir(parents=True)
    (checkpoints / "stage-0.safetensors").touch()


def test_hashes_stand_in_the_manifest_before_any_work(tmp_path: Path) -> None:
    written = tried(tmp_path)
    assert written["models"] == {"target": {"fingerprint": "one"}, "prior": {"fingerprint": "two"}}
    assert (written["data"], written["state"]) == ({"public": {"fingerprint": "three"}}, "running")


def test_the_same_things_are_gone_on_with(tmp_path: Path) -> None:
    tried(tmp_path)
    keep(tmp_path)
    assert tried(tmp_path)["tries"] == 2


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"models": {**MODELS, "prior": "other"}}, "made with other models of these names: prior"),
        ({"data": {"public": "other"}}, "made with other data of these names: public"),
    ],
)
def test_other_things_under_the_same_names_are_refused_at_every_try(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    tried(tmp_path)
    keep(tmp_path)
    for _ in range(2):
        with pytest.raises(RunConflict, match=message):
            tried(tmp_path, **changed)
    tried(tmp_path)


def test_before_anything_is_kept_other_things_may_take_the_place(tmp_path: Path) -> None:
    tried(tmp_path)
    assert tried(tmp_path, {**MODELS, "prior": "other"})["models"]["prior"] == {"fingerprint": "other"}


@pytest.mark.parametrize(
    ("kept", "as_it_was", "judged_otherwise", "longer"),
    [
        ([], True, True, True),
        (["checkpoints/batch-00000.safetensors"], True, True, False),
        (["checkpoints/row-oracle-0123abcd.safetensors"], True, False, False),
        (["checkpoints/batch-00000.safetensors", "records.jsonl"], True, False, False),
    ],
    ids=["nothing", "a batch", "made with private pictures", "judged"],
)
def test_a_folder_is_taken_where_nothing_that_it_keeps_would_differ(
    tmp_path: Path, kept: list[str], as_it_was: bool, judged_otherwise: bool, longer: bool
) -> None:
    folder = RunFolder(tmp_path)
    assert may_be_taken(folder, LONGER)
    folder.settings.write_text(dump_settings(HELD))
    for name in kept:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = [may_be_taken(folder, settings) for settings in (HELD, JUDGED_OTHERWISE, LONGER)]
    assert found == [as_it_was, judged_otherwise, longer]
