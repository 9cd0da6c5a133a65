"""A perturbation of three faces, made, stopped, gone on with, and refused where it must be."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.build import build_classifier, victims
from diffaudit.errors import InvalidSetting, RunConflict, ThreatModelViolation
from diffaudit.events import Event
from diffaudit.perturbation.attack import Attacked, attack
from diffaudit.perturbation.references import Reference
from diffaudit.records import RunFolder, read_course, read_perturbation_records, write_json
from diffaudit.settings import BundledModel, GivenModel, PerturbationSettings
from diffaudit.study import perturbation_runner, perturbed_batches
from diffaudit.study.checkpoints import load_tensors
from diffaudit.study.perturbation_runner import run_perturbation
from diffaudit.study.pictures import save_pictures

from .conftest import PowerCutError

TINY: dict[str, Any] = {
    "name": "tiny",
    "threads": 1,
    "images": {"kind": "faces", "count": 3},
    "batch": 2,
    "latents": {"steps": 4, "start": 2},
    "attention": {"window": [0.3, 1.0]},
    "budget": {"iterations": 2, "stop_margin": None},
    "step": {"rate": 0.1},
    "judging": {
        "defences": [
            {"kind": "bit_depth"},
            {"kind": "resize_pad", "repeats": 2},
            {"kind": "resize_pad", "least": 0.7, "repeats": 1},
        ]
    },
}


@pytest.fixture
def settings() -> PerturbationSettings:
    return PerturbationSettings.model_validate(TINY)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return run_perturbation(PerturbationSettings.model_validate(TINY), folder, command="test")


def results(folder: Path) -> dict[str, bytes]:
    """What must not differ between repeats: the records and every picture."""
    files = [RunFolder(folder).records, *sorted((folder / "images").rglob("*.png"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_every_picture_is_judged_by_every_model(finished: Path) -> None:
    records = read_perturbation_records(RunFolder(finished).records)
    rows = [(record.row, record.image) for record in records]
    assert rows == [(row, number) for row in ("attack", "rebuilt") for number in range(3)]
    for record in records[:3]:
        assert set(record.fooled) == {"residual", "plain", "squeeze", "depthwise", "mixer"}
        assert set(record.defended) == {"depth-4", "resize-pad-0.85", "resize-pad-0.7"}
        assert (finished / record.picture).is_file()
        assert record.iterations == 2
        assert record.reconstruction_psnr is not None
        assert record.perceptual_distance > 0
    for when in ("before", "after"):
        assert RunFolder(finished).attention(2, when).is_file()


def test_what_is_rebuilt_without_a_perturbation_is_judged_too(finished: Path) -> None:
    records = read_perturbation_records(RunFolder(finished).records)
    for attacked, rebuilt in zip(records[:3], records[3:], strict=True):
        assert (finished / rebuilt.picture).is_file()
        assert rebuilt.picture == f"images/rebuilt/{rebuilt.image:05d}.png"
        assert rebuilt.psnr == attacked.reconstruction_psnr  # the same pictures, once judged and once measured
        assert (rebuilt.reconstruction_psnr, rebuilt.iterations) == (None, None)
        assert set(rebuilt.defended) == set(attacked.defended)
    metrics = json.loads(RunFolder(finished).metrics.read_text())
    assert set(metrics["references"]) == {"rebuilt"}
    assert metrics["references"]["rebuilt"]["transfer_mean"]["n"] == metrics["transfer_mean"]["n"]


def test_the_measures_and_the_page_are_there(finished: Path) -> None:
    metrics = json.loads(RunFolder(finished).metrics.read_text())
    assert (metrics["audit"], metrics["images"]) == ("perturbation", 3)
    assert metrics["models"] == {
        "residual": "surrogate",
        "plain": "surrogate",
        "squeeze": "surrogate",
        "depthwise": "heldout",
        "mixer": "heldout",
    }
    assert metrics["seconds_per_image"]["value"] > 0
    assert metrics["kernel_distance"] is None
    assert "kernel_distance: needs at least 50 images, has 3." in metrics["notes"]
    records = read_perturbation_records(RunFolder(finished).records)
    assert all(isinstance(record.label_kept, bool) for record in records)
    assert metrics["label_kept"]["value"] == pytest.approx(sum(record.label_kept or 0 for record in records[:3]) / 3)
    manifest = json.loads(RunFolder(finished).manifest.read_text())
    assert manifest["state"] == "finished"
    assert set(manifest["models"]) == {
        *metrics["models"],
        "prior",
        "perceptual",
        "identity encoder",
        "judging perceptual",
        "judging encoder",
    }
    assert manifest["data"].keys() == {"pictures", "labels", "class names"}
    assert all(words.endswith("hair") for words in manifest["class_names"].values())
    assert "Perturbation audit" in RunFolder(finished).report.read_text()


def test_how_the_attack_went_is_written_down_and_drawn(finished: Path) -> None:
    """Two steps: three points, of which the last takes no further one."""
    points = read_course(RunFolder(finished).curves)
    assert [point.step for point in points] == [0, 1, 2]
    assert [point.moving for point in points] == [1, 1, 0]
    assert list(points[0].fooled) == ["residual", "plain", "squeeze"]
    assert set(points[0].fooled.values()) <= {0.0, None}  # what is lost is added back: nothing was changed yet
    assert [set(point.parts) for point in points] == [{"entropy"}, {"entropy"}, set()]
    assert (finished / "figures" / "fooled.svg").is_file()
    assert 'id="course"' in RunFolder(finished).report.read_text()


def test_the_distance_is_judged_by_a_network_that_the_attack_never_saw(finished: Path) -> None:
    manifest = json.loads(RunFolder(finished).manifest.read_text())
    assert manifest["models"]["perceptual"] != manifest["models"]["judging perceptual"]
    assert not json.loads(RunFolder(finished).metrics.read_text())["own_ruler"]


@pytest.mark.parametrize(("budget", "chosen"), [({"keep": "best"}, True), ({"keep": "last"}, False)])
def test_the_attacks_own_ruler_is_known(tmp_path: Path, budget: dict[str, Any], chosen: bool) -> None:
    judging = {
        "defences": [],
        "rebuilt": False,
        "encoder": None,
        "perceptual": {"kind": "bundled", "name": "attributes"},
    }
    changes = {"images": {"kind": "faces", "count": 1}, "judging": judging, "budget": {"iterations": 1} | budget}
    folder = run_perturbation(PerturbationSettings.model_validate(TINY | changes), tmp_path / "run", command="test")
    assert json.loads(RunFolder(folder).metrics.read_text())["own_ruler"] == chosen


def test_a_stopped_run_goes_on_to_the_same_bits(finished: Path, settings: PerturbationSettings, tmp_path: Path) -> None:
    seen: list[Event] = []

    def stop(event: Event) -> None:
        seen.append(event)
        if sum(one.stage == "perturb" for one in seen) == 3:  # in the second batch
            raise PowerCutError

    folder = tmp_path / "run"
    with pytest.raises(PowerCutError):
        run_perturbation(settings, folder, command="test", on_event=stop)
    kept = list((folder / "checkpoints").glob("batch-*.safetensors"))
    assert len(kept) == 1
    made = kept[0].stat().st_mtime_ns
    first = load_tensors(kept[0])
    assert first is not None
    run_perturbation(settings, folder, command="test")
    assert kept[0].stat().st_mtime_ns == made
    assert results(folder) == results(finished)
    # What the first batch took before the stop is not lost.
    assert json.loads(RunFolder(folder).metrics.read_text())["seconds"]["attack"] > float(first["seconds"])


def test_reference_attacks_are_not_made_twice(
    settings: PerturbationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The power goes when the judges begin; what both attacks made is read back, with the time that it took."""
    made: list[str] = []

    def upside_down(reference: Reference, surrogates: Any, images: Tensor, *rest: Any, seed: int) -> Tensor:
        made.append(reference.name)
        return images.flip(2)

    def stop(event: Event) -> None:
        if event.stage == "judge":
            raise PowerCutError

    monkeypatch.setattr(perturbation_runner, "reference_examples", upside_down)
    asked = PerturbationSettings.model_validate(
        TINY | {"judging": {"references": [{"method": "pgd", "budget": 4}, {"method": "mi-fgsm", "budget": 4}]}}
    )
    with pytest.raises(PowerCutError):
        run_perturbation(asked, tmp_path, command="test", on_event=stop)
    run_perturbation(asked, tmp_path, command="test")
    assert made == ["pgd-4", "mi-fgsm-4"]
    metrics = json.loads(RunFolder(tmp_path).metrics.read_text())
    assert set(metrics["references"]) == {"rebuilt", "pgd-4", "mi-fgsm-4"}
    assert set(metrics["seconds"]) >= {"attack", "pgd-4", "mi-fgsm-4"}


@pytest.mark.parametrize(("kind", "name"), [("models", "prior"), ("data", "labels")])
def test_a_run_that_was_begun_with_other_things_is_refused_and_left_as_it_is(
    finished: Path, settings: PerturbationSettings, tmp_path: Path, kind: str, name: str
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    path = RunFolder(folder).manifest
    manifest = json.loads(path.read_text())
    manifest[kind][name] = {"fingerprint": "of something else"}
    write_json(path, manifest)
    with pytest.raises(RunConflict, match=f"made with other {kind} of these names: {name}"):
        run_perturbation(settings, folder, command="test")
    assert json.loads(path.read_text()) == manifest


def test_what_is_judged_is_what_lies_on_the_disk(
    settings: PerturbationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was made, the files are white: so is what models see, what is measured, and what deserves a label."""

    def white(folder: Path, images: Tensor) -> None:
        save_pictures(folder, images if folder.name == "clean" else torch.full_like(images, 255))

    monkeypatch.setattr(perturbation_runner, "save_pictures", white)
    judging = settings.judging.model_copy(update={"defences": [], "encoder": None})
    folder = run_perturbation(settings.model_copy(update={"judging": judging}), tmp_path / "run", command="test")
    records = read_perturbation_records(RunFolder(folder).records)
    assert [record.row for record in records] == ["attack"] * 3 + ["rebuilt"] * 3
    people, blank = victims(settings.images), torch.ones(3, 3, 64, 64)
    seen = build_classifier(BundledModel(name="hair-mixer")).logits(blank).argmax(1)
    assert people.deserved is not None
    kept = people.deserved(blank) == people.labels
    for record in records:
        assert record.predicted["mixer"] == seen[record.image]
        assert record.linf == pytest.approx(1 - float(people.images[record.image].min()) / 255)
        assert record.label_kept == bool(kept[record.image])


def test_another_run_s_folder_is_refused(finished: Path, settings: PerturbationSettings) -> None:
    with pytest.raises(RunConflict):
        run_perturbation(settings.model_copy(update={"seed": 1}), finished, command="test")


def test_a_held_out_model_that_is_a_surrogate_is_refused_before_any_work(tmp_path: Path) -> None:
    judging = {"heldout": {"same": {"kind": "bundled", "name": "hair-plain"}}}
    settings = PerturbationSettings.model_validate(TINY | {"judging": judging})
    with pytest.raises(ThreatModelViolation):
        run_perturbation(settings, tmp_path / "run", command="test")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_model_of_other_classes_is_refused_before_any_work(tmp_path: Path) -> None:
    judging = {"heldout": {"people": {"kind": "bundled", "name": "target"}}}
    settings = PerturbationSettings.model_validate(TINY | {"judging": judging})
    with pytest.raises(InvalidSetting, match=r"`judging\.heldout\.people` should answer for as many classes"):
        run_perturbation(settings, tmp_path / "run", command="test")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_the_rebuilt_row_may_be_left_out(settings: PerturbationSettings, tmp_path: Path) -> None:
    judging = settings.judging.model_copy(update={"rebuilt": False, "defences": []})
    bare = settings.model_copy(update={"judging": judging, "images": settings.images.model_copy(update={"count": 1})})
    folder = run_perturbation(bare, tmp_path / "run", command="test")
    assert {record.row for record in read_perturbation_records(RunFolder(folder).records)} == {"attack"}
    assert not (folder / "images" / "rebuilt").exists()


def test_a_picture_that_broke_off_is_noted(
    settings: PerturbationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaking(*given: Any, **options: Any) -> Attacked:
        found = attack(*given, **options)
        return replace(found, broken=torch.tensor([False, True][: len(found.images)]))

    monkeypatch.setattr(perturbed_batches, "attack", breaking)
    judging = settings.judging.model_copy(update={"rebuilt": False, "defences": [], "encoder": None})
    folder = run_perturbation(settings.model_copy(update={"judging": judging}), tmp_path / "run", command="test")
    notes = json.loads(RunFolder(folder).metrics.read_text())["notes"]
    assert "attack: 1 of 3 left alone early, for the picture or its gradient was not finite (face-0001)." in notes


def test_models_that_are_python_objects(settings: PerturbationSettings, tmp_path: Path) -> None:
    """A surrogate and a held-out model of one's own; the second answers class 9 whatever it sees."""
    surrogate = build_classifier(BundledModel(name="hair-plain")).model
    judging = settings.judging.model_copy(
        update={"heldout": {"mute": GivenModel(name="mute")}, "defences": [], "rebuilt": False}
    )
    images = settings.images.model_copy(update={"count": 1})
    models = {"surrogates": {"mine": GivenModel(name="mine")}, "judging": judging}
    run = settings.model_copy(update=models | {"images": images})
    with pytest.raises(InvalidSetting, match=r"`surrogates.mine` should be handed over as a Python object"):
        run_perturbation(run, tmp_path / "run", command="test")
    folder = run_perturbation(run, tmp_path / "run", command="test", given={"mine": surrogate, "mute": Mute()})
    metrics = json.loads(RunFolder(folder).metrics.read_text())
    assert metrics["models"] == {"mine": "surrogate", "mute": "heldout"}
    assert metrics["clean_accuracy"]["mute"]["value"] == float(
        read_perturbation_records(RunFolder(folder).records)[0].label == 9
    )


class Mute(nn.Module):
    """Ten classes, and the same answer to every picture."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = nn.Parameter(torch.arange(10.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.answer.expand(len(images), -1)
