"""The table of an ablation whose every vote is known: two seeds, four pictures, two held-out models."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from diffaudit.records import RunFolder, append_lines, write_json
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.ablation_table import ablation_table
from diffaudit.study.bootstrap import cluster_bootstrap
from diffaudit.study.matched_pairs import MatchedPairs
from diffaudit.study.perturbation_images import perturbation_images
from diffaudit.study.planned_rows import Ablation
from diffaudit.study.row_images import paired, voted_pairs

from ..conftest import perturbed
from .conftest import row_named

Votes = list[tuple[str, str]]
MODELS = {"seen": "surrogate", "one": "heldout", "two": "heldout", "kin": "sibling"}
OTHERS = {"seen": "surrogate", "more": "surrogate", "one": "heldout", "two": "heldout", "kin": "sibling"}
TWO = {name: {"kind": "bundled", "name": f"hair-{hair}"} for name, hair in (("seen", "plain"), ("more", "squeeze"))}

BASELINE: Votes = [("rk", "rk"), ("rf", "rk"), ("rk", "wf"), ("wf", "wf")]
"""By picture, shares of 0, 1/2 and 0; no held-out model had picture 3 right."""
FULL: dict[int, Votes] = {
    0: [("rf", "rf"), ("rf", "rk"), ("rf", "wk"), ("wk", "wf")],
    1: [("rf", "rf"), ("rf", "rf"), ("rf", "wk"), ("wk", "wf")],
}
"""Shares of 1, 1/2 and 1, of the second seed 1, 1 and 1."""
NONE: Votes = [("rk", "rk"), ("rk", "rk"), ("rk", "wf"), ("wf", "wf")]
ALL: Votes = [("rf", "rf"), ("rf", "rf"), ("rf", "wf"), ("wf", "wf")]


def write_run(folder: Path, rows: dict[str, Votes], models: dict[str, str], distance: float, tries: int = 1) -> None:
    """A finished run: every surrogate and sibling is fooled, half the repeats behind the defence are."""
    run = RunFolder(folder)
    for row, votes in rows.items():
        for image, (one, two) in enumerate(votes):
            said = {name: {"one": one, "two": two}.get(name, "rf") for name in models}
            behind = {"jpeg-75": dict.fromkeys(models, None if image == 0 else 0.5)}
            values: dict[str, Any] = {"perceptual_distance": distance, "defended": behind, "iterations": 2}
            if image == 3:  # which no held-out model had right: measured with the others, it would show
                values |= {"perceptual_distance": 9.0, "iterations": 50, "psnr": 99.0}
            append_lines(run.records, [perturbed(image, said, row=row, label=7, **values).to_json()])
    write_json(run.metrics, {"models": models, "seconds": {"load": 9.0, "attack": 8.0, "pgd-8": 2.0, "judge": 5.0}})
    write_json(run.manifest, {"state": "finished", "tries": tries})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ablation, Path]:
    """A baseline, a row that transfers more, and one on another set of surrogates whose runs were stopped once."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "base.yaml").write_text("audit: perturbation\nname: base\n")
    values = {
        "audit": "perturbation",
        "name": "study",
        "base": "base.yaml",
        "seeds": [0, 1],
        "resamples": 300,
        "set": {"judging.references": [{"method": "pgd", "budget": 8}]},
        "rows": [
            {"name": "baseline"},
            {"name": "full", "set": {"loss.kind": "ce"}},
            {"name": "more", "set": {"surrogates": TWO}},
        ],
        "contrasts": [{"row": "full", "against": "pgd-8"}],
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    for seed in (0, 1):
        runs = folder / "runs"
        write_run(runs / "baseline" / str(seed), {"attack": BASELINE, "rebuilt": NONE, "pgd-8": ALL}, MODELS, 0.25)
        write_run(runs / "full" / str(seed), {"attack": FULL[seed]}, MODELS, 0.3)
        write_run(runs / "more" / str(seed), {"attack": BASELINE}, OTHERS, 0.25, tries=2)
    return load_ablation(folder / "study.yaml"), folder


@pytest.fixture(scope="module")
def table(study: tuple[Ablation, Path]) -> dict[str, Any]:
    ablation, folder = study
    return ablation_table(ablation, folder, command="diffaudit ablate study.yaml")


def row(table: dict[str, Any], name: str) -> dict[str, Any]:
    return row_named(table, name, None)


def test_names_are_the_contract(table: dict[str, Any]) -> None:
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert (table["audit"], table["clusters"], table["claims"]) == ("perturbation", "images", [])
    assert [found["name"] for found in table["rows"]] == ["rebuilt", "baseline", "full", "more", "pgd-8"]
    assert [found["reference"] for found in table["rows"]] == [True, False, False, False, True]
    assert all(found["mode"] is None and found["stability"] == {} for found in table["rows"])
    full = row(table, "full")
    assert (full["seeds"], full["images"], full["samples"]) == ([0, 1], 4, 8)
    assert set(full["metrics"]) == {
        "transfer_mean", "white_box_mean", "white_box_all_right", "transfer.one", "transfer.two", "sibling.kin",
        "defended.jpeg-75", "perceptual_distance", "ssim", "psnr", "l2", "linf", "colour_difference", "iterations",
    }  # fmt: skip
    assert full["metrics"]["transfer_mean"].keys() == {"value", "low", "high", "n", "naive_low", "naive_high"}
    assert full["metrics"]["ssim"].keys() == {"value", "low", "high"}


def test_levels_by_hand(table: dict[str, Any]) -> None:
    levels = {found["name"]: found["metrics"]["transfer_mean"] for found in table["rows"]}
    assert {name: level["value"] for name, level in levels.items()} == pytest.approx(
        {"rebuilt": 0, "baseline": 0.5 / 3, "full": 5.5 / 6, "more": 0.5 / 3, "pgd-8": 1}
    )
    assert {level["n"] for level in levels.values()} == {6}  # three pictures at two seeds
    assert row(table, "baseline")["metrics"]["transfer.one"]["value"] == pytest.approx(1 / 3)
    assert row(table, "baseline")["metrics"]["transfer.two"] == row(table, "baseline")["metrics"]["transfer.two"] | {
        "value": 0,
        "n": 4,
    }
    assert row(table, "full")["metrics"]["defended.jpeg-75"]["n"] == 6  # picture 0 was never right behind it
    assert row(table, "full")["metrics"]["sibling.kin"]["value"] == 1


def test_a_picture_brings_all_its_seeds(table: dict[str, Any]) -> None:
    """The label is one and the same: were it what is drawn, there would be no interval."""
    found = row(table, "full")["metrics"]["transfer_mean"]
    values, pictures = [1, 1, 0.5, 1, 1, 1], [0, 0, 1, 1, 2, 2]
    ends = cluster_bootstrap(values, pictures, resamples=300, generator=np.random.default_rng(0))
    assert (found["low"], found["high"]) == ends


def test_a_difference_by_hand(table: dict[str, Any]) -> None:
    found = row(table, "full")["versus_baseline"]["transfer_mean"]
    assert found["difference"] == pytest.approx(5.5 / 6 - 0.5 / 3)
    assert found["by_seed"] == pytest.approx([2 / 3, 2.5 / 3])
    assert found["same_sign"]
    assert found["p"] == pytest.approx(2 / 2**3)  # pictures gain 1, 1/4 and 1: two of eight patterns of signs
    # Pairs of a picture and a model that was right: three won in the first seed, four in the second, none lost.
    pairs = MatchedPairs.of(7, 0)
    assert (found["odds_ratio"], found["odds_low"], found["odds_high"]) == (15, pairs.odds_low, None)
    assert found["secondary"]["mcnemar"] == pytest.approx(2 / 2**7)
    distance = row(table, "full")["versus_baseline"]["perceptual_distance"]
    assert distance["difference"] == pytest.approx(0.05)
    assert distance["relative"]["value"] == pytest.approx(0.2)
    assert distance["odds_ratio"] is None
    assert row(table, "full")["versus_baseline"]["psnr"]["relative"] is None  # decibels have no ratio
    assert row(table, "baseline")["versus_baseline"] == row(table, "pgd-8")["versus_baseline"] == {}


def test_rows_are_read_against_what_no_perturbation_does(table: dict[str, Any]) -> None:
    assert row(table, "full")["versus_start"]["transfer_mean"]["difference"] == pytest.approx(5.5 / 6)
    assert row(table, "rebuilt")["versus_start"] == {}


def test_other_surrogates_are_no_same_measure(table: dict[str, Any]) -> None:
    found = row(table, "more")
    assert found["metrics"]["white_box_mean"]["value"] == 1
    assert "white_box_mean" not in found["versus_baseline"]
    assert "white_box_all_right" not in found["versus_baseline"]
    assert found["versus_baseline"]["transfer_mean"]["difference"] == 0
    assert {"white_box_mean", "white_box_all_right"} <= row(table, "full")["versus_baseline"].keys()


def test_a_contrast_with_a_reference(table: dict[str, Any]) -> None:
    (found,) = table["contrasts"]
    assert found["metrics"]["transfer_mean"]["difference"] == pytest.approx(5.5 / 6 - 1)


def test_distances_are_of_the_pictures_on_which_success_is_counted(table: dict[str, Any]) -> None:
    metrics = row(table, "full")["metrics"]
    assert {name: metrics[name]["value"] for name in ("perceptual_distance", "psnr", "iterations")} == {
        "perceptual_distance": pytest.approx(0.3),
        "psnr": 30,
        "iterations": 2,
    }


def test_contrasts_without_a_run_are_told_in_one_sentence(study: tuple[Ablation, Path], tmp_path: Path) -> None:
    ablation, folder = study
    shutil.copytree(folder / "runs", tmp_path / "runs", ignore=shutil.ignore_patterns("full"))
    found = ablation_table(ablation, tmp_path, command="test")
    assert found["contrasts"] == []
    assert "Not compared, for a run is missing: full against pgd-8." in found["notes"]


def test_seconds_are_those_of_making_the_row_in_one_try_or_in_several(table: dict[str, Any]) -> None:
    seconds = {found["name"]: found["seconds"] for found in table["rows"]}
    assert seconds == {"rebuilt": None, "baseline": 8.0, "full": 8.0, "more": 8.0, "pgd-8": 2.0}


def test_few_pictures_are_noted(table: dict[str, Any]) -> None:
    assert any(note.endswith("attack more images or raise `resamples`.") for note in table["notes"])


def test_a_seed_that_failed_is_left_out_and_told_of(study: tuple[Ablation, Path], tmp_path: Path) -> None:
    ablation, folder = study
    for name in ("baseline", "full"):
        for seed in (0, 1) if name == "baseline" else (1,):
            (tmp_path / "runs" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "runs" / name / str(seed)).symlink_to(folder / "runs" / name / str(seed))
    found = ablation_table(ablation, tmp_path, command="")
    assert row(found, "full")["versus_baseline"]["transfer_mean"]["by_seed"] == pytest.approx([2.5 / 3])
    assert "1 of 2 seeds have no finished run: full." in found["notes"]
    assert "2 of 2 seeds have no finished run: more." in found["notes"]


def test_votes_of_which_one_side_does_not_count_make_no_pair() -> None:
    one, other = (
        perturbation_images(
            {0: [perturbed(i, {"a": a, "b": b}) for i, (a, b) in enumerate(votes)]}, {"a": "heldout", "b": "heldout"}
        )
        for votes in ([("rf", "wf"), ("rf", "rk")], [("rk", "rk"), ("rf", "rf")])
    )
    assert paired(one, other)[0].keys == other.keys
    assert voted_pairs(one, other, "transfer_mean") == MatchedPairs.of(1, 1)
    assert voted_pairs(one, other, "white_box_mean") is None
    assert one.keys == (("face-0000", 0, 0), ("face-0001", 0, 1))
