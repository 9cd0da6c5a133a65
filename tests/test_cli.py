"""The commands: what they parse, what they call, what they print, how they fail. The work behind them is replaced."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from typer.testing import CliRunner

from diffaudit import configurations
from diffaudit.cli import app
from diffaudit.errors import InvalidSetting, RunConflict
from diffaudit.events import Event
from diffaudit.settings import AuditSettings, InversionSettings, load_settings

RATE = {"value": 0.625, "low": 0.5, "high": 0.75, "n": 80, "naive_low": 0.51, "naive_high": 0.73}
METRICS: dict[str, Any] = {
    "classes": 20,
    "samples": 80,
    "target_accuracy": {**RATE, "value": 0.9},
    "judge_accuracy": RATE,
    "reference": {
        "start": {"target_accuracy": RATE, "judge_accuracy": {**RATE, "value": 0.25}},
        "oracle": {"target_accuracy": RATE, "judge_accuracy": {**RATE, "value": 0.8, "low": None, "high": None}},
        "upper": {"target_accuracy": RATE, "judge_accuracy": RATE},
        "lower": {"judge_accuracy": RATE},
    },
}


class Runs:
    """A stand-in for `run_inversion` that remembers how it was called."""

    def __init__(self) -> None:
        self.settings = InversionSettings()
        self.folder = Path()
        self.command = ""
        self.error: BaseException | None = None

    def __call__(
        self, settings: InversionSettings, folder: Path, *, command: str, on_event: Callable[[Event], None] | None
    ) -> Path:
        self.settings, self.folder, self.command = settings, folder, command
        assert on_event is not None
        on_event(Event("embed", 1, 2, {"cls": 0.5}))
        if self.error is not None:
            raise self.error
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(json.dumps(METRICS))
        return folder


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "configs"
    shipped.mkdir()
    (shipped / "quick.yaml").write_text("name: quick\nclasses: 20\n")
    (shipped / "all.yaml").write_text("name: everything\nstages: []\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(configurations, "configuration_folder", lambda: shipped)
    monkeypatch.setattr(sys, "argv", ["diffaudit", "invert", "--set", "name=two words"])


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    stand_in = Runs()
    replace(monkeypatch, "diffaudit.study.runner", run_inversion=stand_in)
    return stand_in


def replace(monkeypatch: pytest.MonkeyPatch, name: str, **contents: Any) -> None:
    module = ModuleType(name)
    vars(module).update(contents)
    monkeypatch.setitem(sys.modules, name, module)


def call(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_invert_without_arguments_is_the_quick_configuration(runs: Runs) -> None:
    code, out, _ = call("invert")
    assert code == 0
    assert runs.settings == InversionSettings(name="quick", classes=20)
    assert runs.folder == Path("runs/quick")
    assert runs.command == "diffaudit invert --set 'name=two words'"
    assert out.splitlines()[-1] == str(Path("runs/quick/report.html"))


def test_invert_ends_with_a_table_of_the_rows(runs: Runs) -> None:
    lines = call("invert")[1].splitlines()
    attack, start, oracle, lower = (
        next(line for line in lines if f" {row}" in line[:10]) for row in ("attack", "start", "oracle", "lower")
    )
    assert "20 classes, 80 images" in "\n".join(lines)
    assert all(figure in attack for figure in ("90.0 %", "62.5 %", "50.0 to 75.0 %", "80"))
    assert "25.0 %" in start
    assert "80.0 %" in oracle
    assert " to " not in oracle  # one class: no interval
    assert lower.split("other people")[1].split()[1] == "-"  # the target was not asked


def test_results_are_on_stdout_and_progress_is_not(runs: Runs) -> None:
    _, out, err = call("invert")
    assert out.splitlines()[-1].endswith("report.html")
    assert "embed 1/2" in err
    assert "embed 1" not in out


def test_invert_takes_a_file_an_output_and_settings(runs: Runs, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    code, *_ = call(
        "invert", "mine.yaml", "--set", "stages.0.steps=10", "--set", "optimiser.clip=1e-2",
        "--classes", "3,14", "--output", "elsewhere",
    )  # fmt: skip
    assert code == 0
    assert runs.folder == Path("elsewhere")
    assert runs.settings == load_settings(
        tmp_path / "mine.yaml", {"stages.0.steps": 10, "optimiser.clip": 0.01, "classes": [3, 14]}
    )


@pytest.mark.parametrize(("text", "classes"), [("all", "all"), ("7", 7), ("3,", [3]), ("5, 2", [5, 2])])
def test_classes(runs: Runs, text: str, classes: object) -> None:
    assert call("invert", "--classes", text)[0] == 0
    assert runs.settings.classes == classes


@pytest.mark.parametrize("text", ["some", "0", "-3", "1,x", "2,2", ","])
def test_classes_that_the_settings_refuse(runs: Runs, text: str) -> None:
    code, _, err = call("invert", "--classes", text)
    assert code == 2
    assert "`classes` should" in err
    assert "Found" in err


def test_quick_is_a_trial_in_a_folder_of_its_own(runs: Runs) -> None:
    assert call("invert", "--quick", "--classes", "all", "--set", "stages.1.steps=20")[0] == 0
    assert runs.settings.classes == 20
    assert [stage.steps for stage in runs.settings.stages] == [50, 20]
    assert runs.folder == Path("runs/quick-trial")


def test_a_fault_is_a_message_without_a_traceback(runs: Runs) -> None:
    code, out, err = call("invert", "all", "--set", "seed='[red]x[/red]'")
    assert code == 2
    assert out == ""
    assert "all.yaml: 2 faults" in err
    assert "`seed` should be a valid integer. Found '[red]x[/red]'." in err
    assert "`stages` should have at least 1 item. Found []." in err
    assert "Traceback" not in err
    assert runs.command == ""  # told before any work


def test_brackets_in_a_message_are_no_markup(runs: Runs) -> None:
    runs.error = RunConflict('install it: pip install "diffaudit[timm]"')
    code, _, err = call("invert")
    assert code == 2
    assert "diffaudit[timm]" in err


def test_an_unknown_configuration_names_the_known_ones(runs: Runs) -> None:
    code, _, err = call("invert", "nosuch")
    assert code == 2
    assert "`settings` should be a YAML file or a shipped configuration (all, quick). Found 'nosuch'." in err


@pytest.mark.parametrize("text", ["seed", "=3", "seed=[1", "seed=!!python/name:os.system"])
def test_an_assignment_that_cannot_be_read(runs: Runs, text: str) -> None:
    code, _, err = call("invert", "--set", text)
    assert code == 2
    assert "`--set` should" in err
    assert text in err


def test_an_interrupted_run_says_how_to_go_on(runs: Runs) -> None:
    runs.error = KeyboardInterrupt()
    code, _, err = call("invert")
    assert code == 130
    assert "continue with the same command: diffaudit invert --set 'name=two words'" in err


def test_an_error_of_ours_in_the_code_is_not_hidden(runs: Runs) -> None:
    runs.error = ZeroDivisionError("a fault of the program")
    with pytest.raises(ZeroDivisionError):
        call("invert")


def test_train_hands_over_names_folder_and_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, ...]] = []

    def train_bundle(names: Any, output: Path, *, quick: bool, on_event: Callable[[Event], None]) -> None:
        if "priors" in names:
            raise InvalidSetting("model", "be known", "priors")
        on_event(Event("prior", 1, 1, {}))
        calls.append((list(names), output, quick))

    replace(monkeypatch, "diffaudit.training.bundle", train_bundle=train_bundle)
    code, out, _ = call("train", "judge-plain", "prior", "--output", "here", "--quick")
    assert (code, out.splitlines()[-1]) == (0, "here")
    assert call("train")[0] == 0
    assert calls == [(["judge-plain", "prior"], Path("here"), True), (["all"], Path("runs/models"), False)]
    code, _, err = call("train", "priors")
    assert code == 2
    assert "`model` should be known. Found 'priors'." in err


def test_report_prints_where_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    replace(monkeypatch, "diffaudit.report.html", write_report=lambda run: run / "report.html")
    (tmp_path / "run").mkdir()
    assert call("report", "run") == (0, f"{Path('run/report.html')}\n", "")
    assert call("report", "nowhere")[0] == 2


def test_settings_prints_a_schema_that_names_every_section() -> None:
    code, out, _ = call("settings", "--schema")
    assert code == 0
    assert set(json.loads(out)["properties"]) == {"base", *InversionSettings.model_fields}


def test_settings_prints_what_reads_back_equal(tmp_path: Path) -> None:
    code, out, _ = call("settings")
    assert code == 0
    (tmp_path / "resolved.yaml").write_text(out)
    assert load_settings(tmp_path / "resolved.yaml") == InversionSettings(name="quick", classes=20)
    assert call("settings", "all")[0] == 2


def test_check_takes_either_audit_and_says_what_there_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[AuditSettings] = []

    def check_audit(settings: AuditSettings) -> str:
        seen.append(settings)
        return "all there"

    replace(monkeypatch, "diffaudit.build", check_audit=check_audit)
    (tmp_path / "mine.yaml").write_text("audit: perturbation\nname: mine\n")
    assert call("check", "quick", "--set", "seed=3") == (0, "quick can run: all there\n", "")
    assert call("check", "mine.yaml") == (0, "mine can run: all there\n", "")
    assert [type(settings).__name__ for settings in seen] == ["InversionSettings", "PerturbationSettings"]
    assert seen[0].seed == 3


def test_version() -> None:
    code, out, _ = call("--version")
    assert code == 0
    assert out.startswith("diffaudit ")


def test_no_command_shows_the_help() -> None:
    code, out, err = call()
    assert code == 2
    assert all(command in out + err for command in ("invert", "train", "report", "doctor", "settings"))


def test_a_bare_word_is_a_configuration_and_never_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("name: mine\n")
    assert configurations.settings_path("quick") == tmp_path / "configs" / "quick.yaml"
    assert configurations.settings_path("./mine") == Path("mine")
    for given in ("mine", "configs/", "", "../quick"):
        with pytest.raises(InvalidSetting, match="`settings` should be a YAML file"):
            configurations.settings_path(given)


def test_ablate_hands_over_and_tells_of_failures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []
    failures = [{"row": "rollout-B", "seed": 1, "error": "RuntimeError: no memory"}]

    def run_ablation(
        ablation: Any, folder: Path, *, command: str, workers: int, on_event: Callable[[Event], None]
    ) -> Path:
        calls.append((ablation.settings.name, folder, workers))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ablation.json").write_text(json.dumps({"failures": failures}))
        return folder

    replace(monkeypatch, "diffaudit.study.ablation", run_ablation=run_ablation)
    (tmp_path / "base.yaml").write_text("name: base\n")
    (tmp_path / "study.yaml").write_text("name: study\nbase: base.yaml\nrows: [{name: baseline, mode: rollout}]\n")
    code, out, err = call("ablate", "study.yaml", "--workers", "2")
    assert calls == [("study", Path("runs/study"), 2)]
    assert (code, out.splitlines()[-1]) == (1, str(Path("runs/study/report.html")))
    assert "rollout-B, seed 1: RuntimeError: no memory" in err
    failures.clear()
    assert call("ablate", "study.yaml", "--output", "here")[0] == 0
    (tmp_path / "study.yaml").write_text("name: study\nbase: base.yaml\nrows: [{name: B, mode: rollout}]\n")
    code, _, err = call("ablate", "study.yaml")
    assert code == 2
    assert "`rows` should hold one baseline of mode rollout. Found []." in err


def test_ablate_takes_either_audit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    calls: list[tuple[Any, ...]] = []

    def run_ablation(ablation: Any, folder: Path, **others: Any) -> Path:
        calls.append((ablation.settings.audit, [row.settings.audit for row in ablation.rows], folder))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ablation.json").write_text(json.dumps({"failures": []}))
        return folder

    replace(monkeypatch, "diffaudit.study.ablation", run_ablation=run_ablation)
    (tmp_path / "base.yaml").write_text("audit: perturbation\nname: base\n")
    (tmp_path / "study.yaml").write_text(
        "audit: perturbation\nname: study\nbase: base.yaml\nrows: [{name: baseline}]\n"
    )
    assert call("ablate", "study.yaml")[0] == 0
    assert calls == [("perturbation", ["perturbation"], Path("runs/study"))]
    assert "either audit" in call("ablate", "--help")[1]
    (tmp_path / "study.yaml").write_text("audit: perturbation\nmodes: {}\nclasses: all\nrows: [{name: baseline}]\n")
    code, _, err = call("ablate", "study.yaml")
    assert code == 2
    assert "`classes` should be left out" in err
    assert "`modes` should be left out" in err
