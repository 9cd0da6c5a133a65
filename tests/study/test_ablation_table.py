"""The table of a study whose every image is known: two seeds, eight classes, two images of each."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from diffaudit.study.ablation_table import ablation_table, settings_hash
from diffaudit.study.measured_rows import steadiness
from diffaudit.study.planned_rows import Ablation

from .conftest import read_study, row_named, study_values, write_study

TOO_FEW = (
    "2 comparisons corrected together cannot come below a corrected p of 0.016, whatever is found: attack more classes "
    "or raise `resamples`."
)
Load = Callable[[dict[str, Any]], Ablation]


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("table")
    write_study(folder / "study")
    return ablation_table(read_study(folder, study_values()), folder / "study", command="diffaudit ablate study.yaml")


def test_names_are_the_contract(table: dict[str, Any]) -> None:
    assert json.loads(json.dumps(table, allow_nan=False)) == table
    assert {"audit", "rows", "settings_hash", "command"} <= table.keys()
    assert table["audit"] == "inversion"
    assert [(row["name"], row["mode"]) for row in table["rows"]] == [
        ("start", None),
        ("baseline", "rollout"),
        ("B", "rollout"),
        ("oracle", None),
    ]
    row = row_named(table, "B")
    assert {"name", "mode", "seeds", "metrics", "stability", "seconds", "versus_baseline"} <= row.keys()
    assert row["metrics"].keys() >= {
        "judge_accuracy", "target_accuracy", "overfit_gap", "gap_closed", "identity_cosine", "diversity",
        "perceptual_distance", "attribute_error",
    }  # fmt: skip
    assert row["metrics"]["judge_accuracy"].keys() == {"value", "low", "high", "n", "naive_low", "naive_high"}
    assert row["metrics"]["diversity"].keys() == {"value", "low", "high"}
    found = row["versus_baseline"]["judge_accuracy"]
    assert {"difference", "low", "high", "p", "p_corrected", "by_seed"} <= found.keys()


def test_levels_by_hand(table: dict[str, Any]) -> None:
    shares = {row["name"]: row["metrics"]["judge_accuracy"]["value"] for row in table["rows"]}
    assert shares == {"start": 2 / 8, "oracle": 1.0, "baseline": 4 / 8, "B": 6.5 / 8}
    row = row_named(table, "B")
    assert row["metrics"]["judge_accuracy"]["n"] == 32
    assert row["metrics"]["overfit_gap"]["value"] == pytest.approx(1 - 6.5 / 8)
    assert row["metrics"]["gap_closed"]["value"] == pytest.approx((6.5 - 2) / (8 - 2))
    assert row_named(table, "start", None)["metrics"]["gap_closed"]["value"] == 0
    assert row_named(table, "oracle", None)["metrics"]["gap_closed"]["value"] == 1
    assert (row["seeds"], row["classes"], row["samples"]) == ([0, 1], 8, 32)


def test_a_difference_by_hand(table: dict[str, Any]) -> None:
    found = row_named(table, "B")["versus_baseline"]["judge_accuracy"]
    assert found["difference"] == pytest.approx(2.5 / 8)
    assert found["by_seed"] == pytest.approx([2 / 8, 3 / 8])
    assert found["same_sign"]
    assert found["p"] == pytest.approx(2 / 2**3)  # three classes differ, all upward: 2 of 8 patterns of signs
    assert found["p_corrected"] == found["p"]  # one comparison in the column
    assert found["secondary"]["mcnemar"] == pytest.approx(2 / 2**10)  # ten images won, none lost
    assert found["odds_ratio"] == 21
    gap = row_named(table, "B")["versus_baseline"]["gap_closed"]
    assert gap["difference"] == pytest.approx(2.5 / 6)
    assert gap["by_seed"] == pytest.approx([2 / 6, 3 / 6])
    assert gap["p"] == found["p"]
    change = row_named(table, "B")["versus_baseline"]["diversity"]["relative"]
    assert change["value"] == pytest.approx(0.2)
    versus_start = row_named(table, "baseline")["versus_start"]["judge_accuracy"]
    assert versus_start["difference"] == pytest.approx(2 / 8)
    assert row_named(table, "baseline")["versus_baseline"] == {}
    assert row_named(table, "start", None)["versus_start"] == {}


def test_seconds_count_training_and_the_rows_own_images(table: dict[str, Any]) -> None:
    assert row_named(table, "baseline")["seconds"] == 23.0  # not the images of start and oracle
    assert row_named(table, "B")["seconds"] == 23.0


def test_steadiness_by_hand(table: dict[str, Any]) -> None:
    found = row_named(table, "B")["stability"]
    assert found["coefficient_of_variation"] == {"id": 0.05}
    assert found["variation"] == [0.05, 0.05]
    assert steadiness([]) == {}


def test_holm_over_the_column_and_over_the_table(load: Load, ablation_values: dict[str, Any], finished: Path) -> None:
    ablation_values["rows"].append({"name": "C", "mode": "rollout"})
    (finished / "runs" / "rollout-C").symlink_to(finished / "runs" / "rollout-B")
    column = row_named(ablation_table(load(ablation_values), finished, command=""), "C")["versus_baseline"]
    assert column["judge_accuracy"]["p_corrected"] == pytest.approx(2 * 0.25)
    ablation_values["correction"] = "table"
    table = row_named(ablation_table(load(ablation_values), finished, command=""), "C")["versus_baseline"]
    assert table["judge_accuracy"]["p_corrected"] == 1.0


def test_what_the_correction_cannot_reach_is_noted(table: dict[str, Any]) -> None:
    assert table["notes"] == [TOO_FEW]  # eight classes: p is 2 / 2^8 at least, and both rows meet the start


def test_a_contrast_is_the_difference_of_its_rows(load: Load, ablation_values: dict[str, Any], finished: Path) -> None:
    ablation_values["contrasts"] = [{"row": "start", "against": "rollout-B"}]
    found = ablation_table(load(ablation_values), finished, command="")["contrasts"]
    assert found[0]["metrics"]["judge_accuracy"]["difference"] == pytest.approx(-4.5 / 8)


def test_a_seed_that_failed_is_left_out_and_told_of(
    load: Load, ablation_values: dict[str, Any], finished: Path
) -> None:
    manifest = finished / "runs" / "rollout-baseline" / "1" / "manifest.json"
    manifest.write_text(json.dumps({"state": "running", "tries": 1}))
    failures = [{"row": "rollout-baseline", "seed": 1, "error": "RuntimeError: no memory"}]
    table = ablation_table(load(ablation_values), finished, command="", failures=failures)
    assert table["failures"] == failures
    assert row_named(table, "baseline")["seeds"] == [0]
    assert row_named(table, "B")["seeds"] == [0, 1]
    assert row_named(table, "B")["versus_baseline"]["judge_accuracy"]["by_seed"] == [0.25]
    assert row_named(table, "B")["metrics"]["gap_closed"]["value"] == pytest.approx(4 / 6)
    assert table["notes"] == [
        "1 of 2 seeds have no finished run: rollout-baseline.",
        "rollout-B: compared without seeds [1], which its baseline has not finished.",
        TOO_FEW,
    ]


def test_without_its_baseline_a_row_is_compared_with_none(
    load: Load, ablation_values: dict[str, Any], finished: Path
) -> None:
    for seed in ("0", "1"):
        (finished / "runs" / "rollout-baseline" / seed / "manifest.json").unlink()
    table = ablation_table(load(ablation_values), finished, command="")
    assert [row["name"] for row in table["rows"]] == ["B"]
    assert table["rows"][0]["versus_baseline"] == {}
    assert table["rows"][0]["metrics"]["gap_closed"] is None


def test_the_seconds_of_a_run_that_was_stopped_are_not_known(
    load: Load, ablation_values: dict[str, Any], finished: Path
) -> None:
    for seed in ("0", "1"):
        (finished / "runs" / "rollout-B" / seed / "manifest.json").write_text('{"state": "finished", "tries": 2}')
    assert row_named(ablation_table(load(ablation_values), finished, command=""), "B")["seconds"] is None


def test_a_learned_weight_at_its_bound_is_told(load: Load, ablation_values: dict[str, Any], finished: Path) -> None:
    ablation_values["rows"][1]["set"] |= {
        "weighting": {"kind": "uncertainty"},
        "terms.cls": [{"kind": "top_k", "bounded": True}],
    }
    curves = finished / "runs" / "rollout-B" / "1" / "curves.jsonl"
    curves.write_text(curves.read_text().replace('"id": 1.0', f'"id": {math.exp(4) / 2}'))
    table = ablation_table(load(ablation_values), finished, command="")
    assert "rollout-B: the learned weight of id ended at its bound in seeds [1]." in table["notes"]


def test_the_hash_knows_every_rows_settings(load: Load, ablation_values: dict[str, Any]) -> None:
    before = settings_hash(load(ablation_values))
    assert settings_hash(load(ablation_values)) == before
    ablation_values["rows"][1]["set"]["stages.0.batch"] = 3
    assert settings_hash(load(ablation_values)) != before
