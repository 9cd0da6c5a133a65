"""An ablation of the tiny world, made, stopped, gone on with, and refused where it must be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit import build
from diffaudit.errors import InvalidSetting, RunConflict
from diffaudit.events import Event
from diffaudit.settings import InversionSettings, SettingsError
from diffaudit.study import ablation as module
from diffaudit.study.ablation import run_ablation
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.planned_rows import Ablation

from .conftest import PowerCutError, row_named

Load = Callable[[dict[str, Any]], Ablation]


@pytest.fixture
def tiny(tiny_values: dict[str, Any], tmp_path: Path) -> Ablation:
    """Two rows times two seeds of the tiny world, few steps each."""
    for stage in tiny_values["stages"]:
        stage["steps"] = 2
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(tiny_values))
    rows = [{"name": "baseline", "mode": "rollout"}, {"name": "A+B", "mode": "rollout", "set": {"stages.0.batch": 2}}]
    values = {"name": "small", "base": "base.yaml", "seeds": [0, 1], "classes": [3, 14], "rows": rows, "resamples": 50}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(values))
    return load_ablation(tmp_path / "small.yaml")


class Runs:
    """A stand-in for `run_inversion` that copies what a finished run leaves, and may fail."""

    def __init__(self, made: Path) -> None:
        self.made = made
        self.calls: list[str] = []
        self.failing: dict[str, BaseException] = {}

    def __call__(self, settings: Any, folder: Path, **others: Any) -> Path:
        name = "/".join(folder.parts[-2:])
        self.calls.append(name)
        if name in self.failing:
            raise self.failing[name]
        source = self.made / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        for path in source.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        others["on_event"](Event("embed", 1, 2, {"id": 0.5}))
        return folder


@pytest.fixture
def runs(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs(finished)
    monkeypatch.setattr(module, "run_inversion", stand_in)
    monkeypatch.setattr(build, "check_door", lambda settings: None)
    return stand_in


def test_what_rows_that_wait_lack_is_told_at_once(
    tiny: Ablation, runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished rows need nothing any more."""

    def lack(settings: InversionSettings) -> None:
        raise SettingsError("settings", ["`attack.target.path` should be there."])

    def refused() -> list[str]:
        with monkeypatch.context() as patch:
            patch.setattr(build, "check_door", lack)
            with pytest.raises(SettingsError) as error:
                run_ablation(tiny, tmp_path / "out", command="test")
        return [fault.partition(":")[0] for fault in error.value.faults]

    assert refused() == ["rollout-baseline", "rollout-A+B"]
    assert not runs.calls
    runs.failing = {f"rollout-A+B/{seed}": OSError("no space left") for seed in (0, 1)}
    run_ablation(tiny, tmp_path / "out", command="test")
    assert refused() == ["rollout-A+B"]


def test_a_file_is_no_folder_for_an_ablation(tiny: Ablation, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not overwrite")
    with pytest.raises(RunConflict, match=r"thesis\.txt is a file"):
        run_ablation(tiny, tmp_path / "thesis.txt", command="test")


def test_two_rows_two_seeds_stopped_and_gone_on_with(tiny: Ablation, tmp_path: Path) -> None:
    """Stopped in the third run, the same call makes what is left: no finished run is touched again."""
    folder = tmp_path / "out"
    seen: list[Event] = []

    def stop(event: Event) -> None:
        seen.append(event)
        if event.step == 2 and event.parts:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run_ablation(tiny, folder, command="test", on_event=stop)
    finished = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("report.html")}
    assert len(finished) == 2
    assert not (folder / "ablation.json").exists()

    run_ablation(tiny, folder, command="test", on_event=seen.append)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert "2 of 4 runs are finished already" in [event.message for event in seen]
    manifests = [json.loads(path.read_text()) for path in sorted((folder / "runs").rglob("manifest.json"))]
    assert sorted(manifest["tries"] for manifest in manifests) == [1, 1, 1, 2]
    assert len(list((folder / "cache").iterdir())) == 1

    table = json.loads((folder / "ablation.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["start", "baseline", "A+B", "oracle", "upper", "lower"]
    scheme = row_named(table, "A+B")
    assert (scheme["seeds"], scheme["samples"], scheme["classes"]) == ([0, 1], 8, 2)
    assert len(scheme["versus_baseline"]["identity_cosine"]["by_seed"]) == 2
    assert scheme["stability"]["steps"] == 4
    assert table["failures"] == []
    for name in ("README.md", "report.html", "tables/results.tex", "tables/claims.md", "figures/rows.png"):
        assert (folder / name).is_file()

    before = (folder / "ablation.json").read_bytes()
    run_ablation(tiny, folder, command="test")  # nothing left to run: the same table
    assert (folder / "ablation.json").read_bytes() == before


@pytest.mark.slow
def test_processes_share_the_runs(tiny: Ablation, tmp_path: Path) -> None:
    alone, together = (tmp_path / name for name in ("alone", "together"))
    run_ablation(tiny, alone, command="test")
    run_ablation(tiny, together, command="test", workers=2)
    for path in (alone / "runs").rglob("records.jsonl"):
        assert path.read_bytes() == (together / path.relative_to(alone)).read_bytes()


def test_a_run_that_fails_leaves_the_others_be(
    load: Load, ablation_values: dict[str, Any], runs: Runs, tmp_path: Path
) -> None:
    ablation, folder = load(ablation_values), tmp_path / "out"
    runs.failing["rollout-B/0"] = RuntimeError("not enough memory")
    run_ablation(ablation, folder, command="test")
    assert runs.calls == ["rollout-baseline/0", "rollout-B/0", "rollout-baseline/1", "rollout-B/1"]
    table = json.loads((folder / "ablation.json").read_text())
    assert table["failures"] == [{"row": "rollout-B", "seed": 0, "error": "RuntimeError: not enough memory"}]
    assert row_named(table, "B")["seeds"] == [1]

    runs.failing.clear()
    runs.calls.clear()
    run_ablation(ablation, folder, command="test")
    assert runs.calls == ["rollout-B/0"]
    assert json.loads((folder / "ablation.json").read_text())["failures"] == []


def test_a_fault_of_ours_is_not_taken_for_a_failed_run(
    load: Load, ablation_values: dict[str, Any], runs: Runs, tmp_path: Path
) -> None:
    runs.failing["rollout-baseline/0"] = TypeError("a fault of the program")
    with pytest.raises(TypeError):
        run_ablation(load(ablation_values), tmp_path / "out", command="test")


def test_rows_are_added_to_those_that_are_there(
    load: Load, ablation_values: dict[str, Any], runs: Runs, tmp_path: Path
) -> None:
    rows = ablation_values.pop("rows")
    run_ablation(load(ablation_values | {"rows": rows[:1]}), tmp_path / "out", command="test")
    run_ablation(load(ablation_values | {"rows": rows}), tmp_path / "out", command="test")
    assert runs.calls == ["rollout-baseline/0", "rollout-baseline/1", "rollout-B/0", "rollout-B/1"]


def test_progress_counts_runs_and_shows_their_terms(
    load: Load, ablation_values: dict[str, Any], runs: Runs, tmp_path: Path
) -> None:
    seen: list[Event] = []
    run_ablation(load(ablation_values), tmp_path / "out", command="test", on_event=seen.append)
    assert [(event.step, event.steps) for event in seen if event.parts == {"id": 0.5}] == [(n, 4) for n in range(4)]
    assert seen[2] == Event("ablate", 1, 4, {}, "rollout-baseline seed 0: finished")


def test_runs_made_with_other_settings_are_refused_before_any_work(
    load: Load, ablation_values: dict[str, Any], runs: Runs, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    other = folder / "runs" / "rollout-B" / "1"
    (other / "checkpoints").mkdir(parents=True)
    (other / "settings.yaml").write_text("name: other\n")
    (other / "checkpoints" / "training.safetensors").touch()
    with pytest.raises(RunConflict, match=r"1 folders hold runs made with other settings: .*rollout-B"):
        run_ablation(load(ablation_values), folder, command="test")
    with pytest.raises(InvalidSetting, match=r"`workers` should be a positive integer. Found 0\."):
        run_ablation(load(ablation_values), folder, command="test", workers=0)
    assert runs.calls == []


def test_what_was_refused_before_it_had_begun_is_taken_with_other_settings(
    load: Load, ablation_values: dict[str, Any], runs: Runs, tmp_path: Path
) -> None:
    begun = tmp_path / "out" / "runs" / "rollout-B" / "1"
    begun.mkdir(parents=True)
    (begun / "settings.yaml").write_text("name: other\n")
    run_ablation(load(ablation_values), tmp_path / "out", command="test")
    assert "rollout-B/1" in runs.calls
