"""The measures of a perturbation by hand: success is counted where the model was right, siblings stand apart."""

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from diffaudit.errors import InvalidSetting
from diffaudit.records import PerturbationRecord
from diffaudit.study.bootstrap import cluster_bootstrap
from diffaudit.study.perturbation_metrics import defended_success, perturbation_metrics, success_on_right
from diffaudit.study.statistics import rate, value

from ..conftest import perturbed

MODELS = {"seen": "surrogate", "one": "heldout", "two": "heldout", "kin": "sibling"}
JPEG = {"jpeg-75": {"seen": 1.0, "one": 0.5, "two": None, "kin": 1.0}}

ATTACK = [
    perturbed(0, {"seen": "rf", "one": "rf", "two": "rk", "kin": "rf"}, defended=JPEG, perceptual_distance=0.1),
    perturbed(
        1, {"seen": "rf", "one": "rf", "two": "wf", "kin": "rf"}, defended=JPEG, perceptual_distance=0.3, psnr=None
    ),
    perturbed(2, {"seen": "rk", "one": "wf", "two": "wf", "kin": "rf"}, defended=JPEG, perceptual_distance=9.0),
    perturbed(3, {"seen": "wf", "one": "rk", "two": "rk", "kin": "rf"}, defended=JPEG, reconstruction_psnr=40.0),
]
PGD = [perturbed(i, dict.fromkeys(MODELS, "rf"), row="pgd-8") for i in range(4)]
MEASURES = {
    "images", "clean_accuracy", "white_box_success", "transfer_success", "sibling_success", "transfer_mean",
    "white_box_mean", "white_box_all_right", "label_kept", "transfer_kept", "white_box_kept",
    "defended_success", "defended_white_box", "perceptual_distance", "ssim", "psnr", "l2", "linf", "colour_difference",
    "reconstruction_psnr", "kernel_distance", "frechet_distance", "seconds_per_image",
}  # fmt: skip


def metrics(records: list[PerturbationRecord], **options: Any) -> dict[str, Any]:
    return perturbation_metrics(records, MODELS, resamples=200, **options)


def test_successes_by_hand() -> None:
    found = metrics(ATTACK)
    assert found["clean_accuracy"]["seen"]["value"] == 0.75
    assert (found["clean_accuracy"]["two"]["value"], found["clean_accuracy"]["two"]["n"]) == (0.5, 4)
    # The surrogate was right on pictures 0, 1 and 2, and fooled on 0 and 1; what it had wrong is no success.
    assert found["white_box_success"]["seen"]["value"] == pytest.approx(2 / 3)
    assert found["white_box_success"]["seen"]["n"] == 3
    assert found["transfer_success"]["one"]["value"] == pytest.approx(2 / 3)
    assert found["transfer_success"]["two"]["value"] == 0
    # By picture: 1 of 2, 1 of 1, none right, 0 of 2.
    assert found["transfer_mean"]["value"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["transfer_mean"]["n"] == 3
    assert found["white_box_mean"] == found["white_box_success"]["seen"]
    assert (found["audit"], found["images"], found["models"]) == ("perturbation", 4, MODELS)


def test_where_all_models_were_right() -> None:
    """The third model was wrong on picture 1: only 0 and 2 count, of which one is fooled."""
    shown = [
        perturbed(0, {"seen": "rf", "one": "rk", "kin": "rk"}),
        perturbed(1, {"seen": "rf", "one": "rf", "kin": "wf"}),
        perturbed(2, {"seen": "rk", "one": "rf", "kin": "rf"}),
    ]
    roles = {name: MODELS[name] for name in ("seen", "one", "kin")}
    found = perturbation_metrics(shown, roles, resamples=200)
    assert (found["white_box_all_right"]["value"], found["white_box_all_right"]["n"]) == (0.5, 2)
    assert found["white_box_mean"]["value"] == pytest.approx(2 / 3)
    assert metrics(ATTACK)["white_box_all_right"]["n"] == 1
    assert metrics(ATTACK[1:])["white_box_all_right"] is None


def test_siblings_stand_apart() -> None:
    found = metrics(ATTACK)
    assert found["sibling_success"] == {"kin": found["sibling_success"]["kin"]}
    assert found["sibling_success"]["kin"]["value"] == 1
    assert set(found["transfer_success"]) == {"one", "two"}
    without = perturbation_metrics(
        [perturbed(i, {"seen": "rf", "one": "rf"}) for i in range(3)], {"seen": "surrogate", "one": "sibling"}
    )
    assert without["transfer_mean"] is None
    assert without["transfer_success"] == {}


def test_what_no_longer_deserves_its_label_fools_nobody() -> None:
    """By picture, transfer of 1/2, 1 and 0: the second has become another class, and its models were right."""
    judged = [replace(record, label_kept=record.image != 1) for record in ATTACK]
    found = metrics(judged)
    assert found["label_kept"]["value"] == 0.75
    assert found["transfer_kept"]["value"] == pytest.approx(0.5 / 3)
    assert found["transfer_kept"]["n"] == found["transfer_mean"]["n"] == 3
    assert found["white_box_kept"]["value"] == pytest.approx(1 / 3)
    assert found["transfer_mean"] == metrics(ATTACK)["transfer_mean"]
    unasked = metrics(ATTACK)
    assert (unasked["label_kept"], unasked["transfer_kept"], unasked["white_box_kept"]) == (None, None, None)


def test_defences_count_the_held_out_models() -> None:
    found = metrics(ATTACK)
    assert found["defended_success"]["jpeg-75"]["value"] == 0.5
    assert found["defended_white_box"]["jpeg-75"]["value"] == 1
    assert defended_success(ATTACK[0], "jpeg-75", ["one", "seen"]) == 0.75
    assert defended_success(ATTACK[0], "jpeg-75", ["two"]) is None


def test_distances_of_sets_are_handed_through_to_their_rows() -> None:
    apart = {"value": 0.1, "low": 0.0, "high": 0.2}
    found = metrics([*ATTACK, *PGD], sets={"pgd-8": {"kernel_distance": apart, "frechet_distance": None}})
    assert (found["kernel_distance"], found["frechet_distance"]) == (None, None)
    assert found["references"]["pgd-8"]["kernel_distance"] == apart


def test_distances_by_hand() -> None:
    """Of the pictures that some held-out model had right: not of the third, on which no success could be counted."""
    found = metrics(ATTACK)
    assert found["perceptual_distance"]["value"] == pytest.approx((0.1 + 0.3 + 0.25) / 3)
    assert found["psnr"]["value"] == 30
    assert found["reconstruction_psnr"]["value"] == 40
    assert "psnr: measured on 2 of 3 images." in found["notes"]
    assert found["seconds_per_image"] is None
    broken = [*ATTACK[:3], perturbed(3, dict.fromkeys(MODELS, "rf"), defended=JPEG, ssim=math.nan)]
    assert metrics(broken)["ssim"] is None


def test_where_no_held_out_model_was_ever_right_all_pictures_are_measured() -> None:
    wrong = [replace(record, clean_hits=dict.fromkeys(MODELS, False)) for record in ATTACK]
    assert metrics(wrong)["perceptual_distance"]["value"] == pytest.approx((0.1 + 0.3 + 9.0 + 0.25) / 4)


def test_names_are_the_contract() -> None:
    found = metrics([*ATTACK, *PGD], seconds={"attack": 8.0, "pgd-8": 2.0})
    extra = {"audit", "classes", "clusters", "targeted", "models", "residual_added", "own_ruler", "references", "notes"}
    assert set(found) == MEASURES | extra
    assert set(found["references"]["pgd-8"]) == MEASURES
    assert found["seconds_per_image"] == {"value": 2.0, "low": None, "high": None}
    assert found["references"]["pgd-8"]["seconds_per_image"]["value"] == 0.5
    assert found["references"]["pgd-8"]["transfer_mean"]["value"] == 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_intervals_are_those_of_the_statistics() -> None:
    found = perturbation_metrics(ATTACK, MODELS, seed=3, resamples=500)
    expected = rate([1, 1, 0], range(3), resamples=500, generator=np.random.default_rng(3)).to_json()
    assert found["white_box_success"]["seen"] == expected
    mean = value([0.1, 0.3, 0.25], [0, 1, 3], resamples=500, generator=np.random.default_rng(3)).to_json()
    assert found["perceptual_distance"] == mean


def test_pictures_are_what_is_drawn_whatever_their_labels() -> None:
    """With one vote each, the interval is the bootstrap over pictures, of one label or of many."""
    votes = [{"seen": "rf", "one": letters} for letters in ("rf", "rk", "rf", "rf")]
    models = {"seen": "surrogate", "one": "heldout"}
    many, one = ([perturbed(i, vote, label=i * n) for i, vote in enumerate(votes)] for n in (1, 0))
    found, alike = (perturbation_metrics(records, models, seed=3, resamples=500) for records in (many, one))
    low, high = cluster_bootstrap([1, 0, 1, 1], range(4), resamples=500, generator=np.random.default_rng(3)) or (2, 2)
    assert (found["transfer_mean"]["low"], found["transfer_mean"]["high"]) == (low, high)
    assert alike["transfer_mean"] == found["transfer_mean"]
    assert (found["clusters"], found["classes"], alike["classes"]) == ("images", 4, 1)


def test_one_picture_has_no_interval() -> None:
    assert metrics([perturbed(0, dict.fromkeys(MODELS, "rf"))])["transfer_mean"]["low"] is None


def test_a_goal_makes_a_targeted_run() -> None:
    assert not metrics(ATTACK)["targeted"]
    assert metrics([perturbed(i, dict.fromkeys(MODELS, "rf"), goal=9) for i in range(2)])["targeted"]


def test_a_model_that_was_never_right_has_no_success() -> None:
    found = metrics([perturbed(i, dict.fromkeys(MODELS, "rf") | {"two": "wf"}) for i in range(2)])
    assert found["transfer_success"]["two"] is None
    assert found["transfer_mean"]["value"] == 1
    assert any(note.startswith("two: right on no clean picture") for note in found["notes"])
    assert success_on_right(perturbed(0, {"a": "wf"}), ["a"]) is None


def test_a_reference_over_other_images_is_noted() -> None:
    assert any(note.startswith("pgd-8: over other images") for note in metrics([*ATTACK, *PGD[:2]])["notes"])


@pytest.mark.parametrize(
    ("records", "words"),
    [
        (PGD, "hold at least one image of row 'attack'"),
        ([*ATTACK, ATTACK[0]], "hold each image of row 'attack' once. Found '0 twice'"),
        ([perturbed(0, {"seen": "rf"})], "name the models of the run, seen, one, two, kin"),
    ],
)
def test_unsound_records_are_refused(records: list[PerturbationRecord], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        metrics(records)
