"""A run from settings to report, stopped and started again, and refused where it must be."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor

from diffaudit.build import build_attacker
from diffaudit.errors import InvalidSetting, MissingExtra, RunConflict, ThreatModelViolation
from diffaudit.events import Event
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.sampling import Reconstructions, sample
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.bundled import save_network
from diffaudit.models.networks import build_network
from diffaudit.records import RunFolder, read_curves, read_records, write_json
from diffaudit.settings import InversionSettings, SettingsError, check_settings
from diffaudit.study.runner import run_inversion
from diffaudit.training.prior import untrained_prior
from diffaudit.training.tokenizers import word_tokenizer

from .conftest import PowerCutError

METRICS = {
    "audit", "classes", "samples", "target_accuracy", "judge_accuracy", "judge_accuracy_top5", "judges",
    "identity_cosine", "knn_distance", "diversity", "perceptual_distance", "attribute_error", "factor_error",
    "reference", "overfit_gap", "distribution", "stability", "seconds",
}  # fmt: skip


def results(folder: Path) -> dict[str, bytes]:
    """Everything of a run that may not differ between repeats."""
    run = RunFolder(folder)
    files = [run.records, run.curves, *sorted(run.images.rglob("*.png"))]
    metrics = json.loads(run.metrics.read_text()) | {"seconds": None}
    return {str(file.relative_to(folder)): file.read_bytes() for file in files} | {
        run.metrics.name: json.dumps(metrics).encode()
    }


@pytest.fixture(scope="module")
def whole_run(tiny_settings: InversionSettings, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The results of a run that nothing disturbed."""
    return results(run_inversion(tiny_settings, tmp_path_factory.mktemp("whole") / "run", command="test"))


def test_a_run_leaves_all_that_a_report_needs(tiny_settings: InversionSettings, tmp_path: Path) -> None:
    folder = run_inversion(tiny_settings, tmp_path / "run", command="test")
    run = RunFolder(folder)
    metrics = json.loads(run.metrics.read_text())
    assert metrics.keys() >= METRICS
    assert (metrics["classes"], metrics["samples"]) == (2, 4)
    assert metrics["reference"].keys() == {"upper", "lower", "start", "oracle"}
    records = read_records(run.records)
    assert [r.row for r in records].count("attack") == 4
    assert all((folder / record.image).exists() for record in records)
    assert all((folder / record.source_image).exists() for record in records if record.source_image)
    assert len(read_curves(run.curves)) == 6
    assert run.report.exists()
    manifest = json.loads(run.manifest.read_text())
    assert manifest["state"] == "finished"
    assert {"target", "prior", "perceptual", "attributes", "judge identity encoder"} < manifest["models"].keys()
    assert manifest["data"].keys() == {"public", "private"}
    marks = [entry["fingerprint"] for entry in (*manifest["models"].values(), *manifest["data"].values())]
    assert all(len(mark) == 64 for mark in marks)


def test_rows_are_compared_as_sets(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """17 classes of 3 images are the 51 that the measures need; `lower` is the set of `upper`."""
    tiny_values |= {"classes": 17, "stages": [tiny_values["stages"][0] | {"steps": 0}]}
    tiny_values["sampling"] |= {"keep": 3, "finishing": {"steps": 1}}
    tiny_values["attack"]["public"]["identities"] = 60
    tiny_values["judging"]["private"]["per_identity"] = 4
    folder = run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    metrics = json.loads(RunFolder(folder).metrics.read_text())
    found = metrics["distribution"]
    assert (found["references"], found["classes"]) == (68, 17)
    assert found["rows"].keys() == {"attack", "attack-finished", "start", "oracle", "public"}
    for row in found["rows"].values():
        assert row["n"] == 51
        assert row["frechet_distance"] is None
        assert row["kernel_distance"]["low"] < row["kernel_distance"]["value"] < row["kernel_distance"]["high"]
        assert all(0 <= row[name]["value"] <= 1 for name in ("precision", "recall", "coverage"))
    assert metrics["notes"] == ["frechet_distance: needs at least 2048 images in each set, has 51."]
    page = RunFolder(folder).report.read_text()
    assert "as a set?" in page
    assert (folder / "tables" / "distribution.md").exists()


def test_too_few_public_pictures_are_no_set(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    tiny_values["attack"]["public"] |= {"identities": 3, "per_identity": 1}
    tiny_values |= {"stages": [tiny_values["stages"][0] | {"steps": 0}]}
    folder = run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    metrics = json.loads(RunFolder(folder).metrics.read_text())
    assert "public" not in metrics["distribution"]["rows"]
    assert metrics["notes"][0].startswith("public: 3 public pictures are no set to hold against 4 images")


def test_pairs_of_rows_share_sources_and_noise(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """Without a training step the attack row is the start row, picture by picture."""
    for stage in tiny_values["stages"]:
        stage["steps"] = 0
    folder = run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    attack, start = (
        [np.asarray(Image.open(path)).astype(int) for path in sorted((folder / "images" / row).glob("*.png"))]
        for row in ("attack", "start")
    )
    # An anchor that is normalised once more may round another way.
    assert len(attack) == len(start) == 4
    assert all(abs(one - other).max() <= 1 for one, other in zip(attack, start, strict=True))


def test_optimised_pixels_are_a_row_of_their_own(
    tiny_values: dict[str, Any], tmp_path: Path, whole_run: dict[str, bytes]
) -> None:
    tiny_values["sampling"]["finishing"] = {"steps": 8, "rate": 0.05}
    folder = run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    found = results(folder)
    records = read_records(RunFolder(folder).records)
    drawn, finished = ([r for r in records if r.row == row] for row in ("attack", "attack-finished"))
    assert [(r.label, r.sample, r.source) for r in finished] == [(r.label, r.sample, r.source) for r in drawn]
    assert all(
        after.target_log_probability > before.target_log_probability
        for before, after in zip(drawn, finished, strict=True)
    )
    # Everything else is as it was without the option, the row `attack` above all.
    added = [name for name in found if name not in whole_run]
    assert added == [record.image for record in finished]
    changed = ("records.jsonl", "metrics.json")
    assert all(found[name] == content for name, content in whole_run.items() if name not in changed)
    others = [line for line in found["records.jsonl"].splitlines() if b'"attack-finished"' not in line]
    assert others == whole_run["records.jsonl"].splitlines()
    metrics = json.loads(RunFolder(folder).metrics.read_text())
    assert metrics["reference"]["attack-finished"]["samples"] == metrics["samples"] == 4
    page = RunFolder(folder).report.read_text()
    assert "not a reconstruction: these are adversarial examples of the target" in page
    assert page.count("with optimised pixels: no reconstruction") == 4


def test_the_ceiling_is_drawn_under_the_true_mean_of_each_class(
    tiny_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the attacker's encoder, of the very pictures that the images are judged against."""
    asked: list[Tensor] = []

    def watching(attacker: Attacker, embeddings: Tensor, *rest: Any, **more: Any) -> Reconstructions:
        asked.append(embeddings)
        return sample(attacker, embeddings, *rest, **more)

    monkeypatch.setattr("diffaudit.study.runner.sample", watching)
    settings = check_settings(_with_steps(tiny_values | {"classes": [3, 5, 7]}, 0))
    folder = run_inversion(settings, tmp_path / "run", command="test")
    encoder, means = build_attacker(settings).encoder, []
    for label in (3, 5, 7):
        paths = sorted((folder / "images" / "reference").glob(f"{label:04d}-*.png"))
        pictures = [torch.from_numpy(np.asarray(Image.open(path)) / 255).float() for path in paths]
        means.append(encoder(torch.stack(pictures).permute(0, 3, 1, 2)).mean(0))
    assert len(asked) == 3  # start, attack, oracle
    torch.testing.assert_close(asked[-1], torch.stack([mean / mean.norm() for mean in means]))


def test_the_floor_is_everyones_pictures_under_another_name(whole_run: dict[str, bytes]) -> None:
    shown: dict[str, dict[str, list[bytes]]] = {"upper": {}, "lower": {}}
    for name, content in whole_run.items():
        _, row, file = Path(name).parts if name.endswith(".png") else ("", "", "")
        if row in shown:
            shown[row].setdefault(file.split("-")[0], []).append(content)
    one, other = shown["upper"]
    assert shown["upper"][one] != shown["upper"][other]
    assert shown["lower"] == {one: shown["upper"][other], other: shown["upper"][one]}


@pytest.mark.parametrize("moment", [1, 4, 7, 9, 11])
def test_a_stopped_run_ends_with_the_same_bits(
    tiny_settings: InversionSettings, tmp_path: Path, whole_run: dict[str, bytes], moment: int
) -> None:
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run_inversion(tiny_settings, tmp_path / "run", command="test", on_event=stop)
    run_inversion(tiny_settings, tmp_path / "run", command="test")
    assert results(tmp_path / "run") == whole_run


def test_a_finished_run_is_repeated_to_the_same_bits(
    tiny_settings: InversionSettings, tmp_path: Path, whole_run: dict[str, bytes]
) -> None:
    run_inversion(tiny_settings, tmp_path / "run", command="test")
    run_inversion(tiny_settings, tmp_path / "run", command="test")
    assert results(tmp_path / "run") == whole_run


def test_a_run_that_was_begun_with_another_model_is_refused_and_left_as_it_is(
    tiny_settings: InversionSettings, tmp_path: Path, whole_run: dict[str, bytes]
) -> None:
    folder = RunFolder(tmp_path / "run")
    run_inversion(tiny_settings, folder.path, command="test")
    manifest = json.loads(folder.manifest.read_text())
    manifest["models"]["target"] = {"fingerprint": "of something else"}
    write_json(folder.manifest, manifest)
    with pytest.raises(RunConflict, match="made with other models of these names: target"):
        run_inversion(tiny_settings, folder.path, command="test")
    assert json.loads(folder.manifest.read_text()) == manifest
    assert results(folder.path) == whole_run


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_with_the_same_bits(
    tiny_values: dict[str, Any], tmp_path: Path, whole_run: dict[str, bytes]
) -> None:
    settings = tmp_path / "tiny.yaml"
    settings.write_text(yaml.safe_dump(tiny_values))
    command = [sys.executable, "-m", "diffaudit", "invert", str(settings), "--output", str(tmp_path / "run")]
    began = time.monotonic()
    subprocess.run([*command[:-1], str(tmp_path / "timing")], check=True, capture_output=True)
    whole = time.monotonic() - began
    moments = random.Random(0)
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 0.95) * whole)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert results(tmp_path / "run") == whole_run


def test_a_folder_of_another_run_is_refused(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "row-start.safetensors").write_bytes(b"")
    (tmp_path / "run" / "settings.yaml").write_text("name: other\n")
    with pytest.raises(RunConflict, match="other settings"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")


def test_a_fault_of_the_judges_that_is_told_late_costs_no_attack(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """A judge of seven classes for a target of a hundred: known only when the judge is opened."""
    network = {"architecture": "plain", "outputs": 7, "size": 64}
    save_network(build_network("plain", 7), tmp_path / "seven", network)
    judging = tiny_values["judging"]
    few = judging["classifiers"] | {"one": {"kind": "trained", "folder": str(tmp_path / "seven")}}
    faulty = tiny_values | {"judging": judging | {"classifiers": few}}
    with pytest.raises(InvalidSetting, match=r"`judging.classifiers.one` should tell apart as many .*, 100. Found 7"):
        run_inversion(check_settings(faulty), tmp_path / "run", command="test")
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert {path.name for path in kept} >= {"row-start.safetensors", "row-attack.safetensors"}
    with pytest.raises(RunConflict, match="other settings"):
        run_inversion(check_settings(tiny_values | {"seed": 9}), tmp_path / "run", command="test")
    run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    assert all(path.stat().st_mtime_ns == made for path, made in kept.items())


def test_before_anything_is_kept_a_folder_takes_other_settings(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    faulty = tiny_values | {"sampling": tiny_values["sampling"] | {"keep": 1}, "classes": 101}
    with pytest.raises(InvalidSetting, match="classes"):
        run_inversion(check_settings(faulty), tmp_path / "run", command="test")
    run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")


def test_judges_that_are_not_there_are_told_before_the_attack(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    tiny_values["judging"]["encoder"] = {"kind": "pt2", "path": str(tmp_path / "nowhere.pt2"), "size": 64}
    with pytest.raises(SettingsError, match=r"`judging.encoder.path` should be a file or folder that is there"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_too_few_private_people_are_told_before_the_attack(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    for name in ("ann", "bob"):
        (tmp_path / "people" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (64, 64), (40 * number, 0, 0)).save(tmp_path / "people" / name / f"{number}.png")
    tiny_values["judging"]["private"] = {"kind": "folders", "folders": [str(tmp_path / "people")]}
    with pytest.raises(InvalidSetting, match=r"`judging.private` should show every class .* 100\. Found 2"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_one_class_has_nobody_elses_photographs(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """Under "another's" name its own would be row `upper` once more: the row is left out, and the report says so."""
    tiny_values |= {"classes": 1}
    run = RunFolder(run_inversion(check_settings(_with_steps(tiny_values, 1)), tmp_path / "run", command="test"))
    metrics = json.loads(run.metrics.read_text())
    assert metrics["reference"].keys() == {"upper", "start", "oracle"}
    assert [note for note in metrics["notes"] if note.startswith("lower: ")]
    assert "private pictures show one class" in run.report.read_text()


def test_a_folder_of_something_else_is_refused(tiny_settings: InversionSettings, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not overwrite")
    with pytest.raises(RunConflict, match="holds no run"):
        run_inversion(tiny_settings, tmp_path, command="test")


def test_a_file_is_no_folder_for_a_run(tiny_settings: InversionSettings, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("do not overwrite")
    for folder in (tmp_path / "thesis.txt", tmp_path / "thesis.txt" / "run"):
        with pytest.raises(RunConflict, match=r"thesis\.txt is a file"):
            run_inversion(tiny_settings, folder, command="test")


def test_a_judge_that_is_the_target_is_refused_before_any_work(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    tiny_values["judging"]["classifiers"]["one"] = tiny_values["attack"]["target"]
    with pytest.raises(ThreatModelViolation, match=r"judging\.one"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")


def test_what_cannot_be_trained_is_refused_before_the_start_row_is_drawn(
    tiny_values: dict[str, Any], tmp_path: Path
) -> None:
    tiny_values |= {"terms": {"cls": [{"kind": "top_k", "k": 100}]}}
    with pytest.raises(InvalidSetting, match=r"`terms.cls.k` should be at most 99"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    assert not (RunFolder(tmp_path / "run").checkpoints / "row-start.safetensors").exists()


def test_a_missing_solver_is_told_before_the_start_row_is_drawn(
    tiny_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    tiny_values |= {"weighting": {"kind": "aggregated"}}
    with pytest.raises(MissingExtra, match="torchjd"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    assert not (RunFolder(tmp_path / "run").checkpoints / "row-start.safetensors").exists()


def test_rows_of_reference_know_nothing_of_a_trained_projector(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """Start and ceiling are the same pictures whether it trains or not, also in a run that goes on after training."""
    still = run_inversion(check_settings(_with_steps(tiny_values, 0)), tmp_path / "still", command="test")
    settings = check_settings(_with_steps(tiny_values, 1))

    def stop(event: Event) -> None:
        if event.stage == "sample attack":
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run_inversion(settings, tmp_path / "moved", command="test", on_event=stop)
    moved = run_inversion(settings, tmp_path / "moved", command="test")
    rows = {row: [_pictures(folder, row) for folder in (still, moved)] for row in ("start", "oracle", "attack")}
    assert {row for row, (one, other) in rows.items() if one == other} == {"start", "oracle"}


def test_a_prior_of_text_alone_learns_to_be_asked_for_a_person(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 16, 16))
    words = word_tokenizer(("face",))
    prior = untrained_prior(autoencoder, words, latent_channels=4, side=8, widths=(16, 32), cross_attention_dim=32)
    prior.save(tmp_path / "prior")
    tiny_values["attack"]["prior"]["location"] = str(tmp_path / "prior")
    with pytest.raises(InvalidSetting, match=r"`attack.prior` should have an identity projector.*condition: image"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    first = {"name": "meet", "trains": ["projector", "lora"], "condition": "image", "rate": 0.01}
    tiny_values["stages"] = [tiny_values["stages"][0] | first, *tiny_values["stages"]]
    folder = run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    rows = {row: _pictures(folder, row) for row in ("start", "attack")}
    assert rows["start"] != rows["attack"]


def _with_steps(values: dict[str, Any], steps: int) -> dict[str, Any]:
    stage = values["stages"][1] | {"trains": ["projector", "lora"], "rate": 0.1, "steps": steps}
    return values | {"stages": [stage]}


def _pictures(folder: Path, row: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / "images" / row).glob("*.png"))]


def test_a_class_that_the_target_lacks_is_refused(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    tiny_values["classes"] = [3, 100]
    with pytest.raises(InvalidSetting, match="below 100"):
        run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")


@pytest.mark.parametrize("mode", ["one_step", "rollout"])
@pytest.mark.parametrize("kind", ["table", "mlp", "manifold"])
def test_every_mode_and_embedding_runs(tiny_values: dict[str, Any], tmp_path: Path, mode: str, kind: str) -> None:
    tiny_values["image"]["mode"] = mode
    tiny_values["embedding"]["kind"] = kind
    tiny_values["reference_rows"] = False
    folder = run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")
    curves = read_curves(RunFolder(folder).curves)
    assert all(point.gradient_norm > 0 for point in curves)
    assert {record.row for record in read_records(RunFolder(folder).records)} == {"attack"}
