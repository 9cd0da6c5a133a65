import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffaudit.errors import InvalidSetting
from diffaudit.records import JudgeVote, Record
from diffaudit.study.bootstrap import cluster_bootstrap
from diffaudit.study.metrics import inversion_metrics, vote_rate
from diffaudit.study.statistics import rate


def record(label: int, sample: int, hits: str, *, row: str = "attack", target: bool = True, **values: Any) -> Record:
    """``hits`` holds a letter a judge: 1 its first choice, 5 in its first five, 0 neither."""
    votes = {
        f"judge{index}": JudgeVote(predicted=label if hit == "1" else label + 1, hit=hit == "1", top5=hit in "15")
        for index, hit in enumerate(hits)
    }
    photograph = row in ("upper", "lower")
    found: dict[str, Any] = {
        "source": None if photograph else 0,
        "image": f"images/{row}/{label:04d}-{sample:02d}.png",
        "source_image": None if photograph else "images/source/00000.png",
        "target_log_probability": -0.5,
        "identity_cosine": 0.5,
        "knn_distance": 0.8,
        "diversity": 0.3,
        "perceptual_distance": None if photograph else 0.4,
        "attribute_error": None if photograph else {"pose": 0.2, "expression": 0.6},
        "factor_error": None,
    }
    return Record(row=row, label=label, sample=sample, target_hit=target, judges=votes, **(found | values))


ATTACK = [
    record(0, 0, "11", identity_cosine=0.9),
    record(0, 1, "15", identity_cosine=0.7),
    record(1, 0, "00", identity_cosine=0.2, target=False),
    record(1, 1, "10", identity_cosine=0.4),
]
START = [record(0, 0, "10", row="start"), *(record(*key, "00", row="start") for key in ((0, 1), (1, 0), (1, 1)))]
UPPER = [record(label, sample, "11", row="upper") for label in (0, 1) for sample in (0, 1)]


def metrics(records: list[Record], **options: Any) -> dict[str, Any]:
    return inversion_metrics(records, resamples=200, **options)


def finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(finite, value.values()))
    return not isinstance(value, float) or math.isfinite(value)


def test_accuracies_by_hand() -> None:
    found = metrics([*ATTACK, *START, *UPPER])
    assert (found["audit"], found["classes"], found["samples"]) == ("inversion", 2, 4)
    assert found["target_accuracy"]["value"] == 0.75
    assert found["judge_accuracy"]["value"] == (1 + 0.5 + 0 + 0.5) / 4
    assert found["judge_accuracy_top5"]["value"] == (1 + 1 + 0 + 0.5) / 4
    assert found["judges"]["judge0"]["value"] == 0.75
    assert found["judges"]["judge1"]["value"] == 0.25
    assert {name: rate["value"] for name, rate in found["judges_top5"].items()} == {"judge0": 0.75, "judge1": 0.5}
    assert found["overfit_gap"]["value"] == 0.25
    assert found["identity_cosine"]["value"] == pytest.approx(0.55)
    assert found["attribute_error"]["expression"]["value"] == pytest.approx(0.6)
    assert found["factor_error"] is None
    assert found["reference"]["start"]["judge_accuracy"]["value"] == 0.125
    assert found["reference"]["upper"]["judge_accuracy"]["value"] == 1.0
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_names_are_the_contract() -> None:
    found = metrics([*ATTACK, *START, *UPPER])
    assert {
        "audit",
        "classes",
        "samples",
        "target_accuracy",
        "judge_accuracy",
        "judge_accuracy_top5",
        "judges",
        "identity_cosine",
        "knn_distance",
        "diversity",
        "perceptual_distance",
        "attribute_error",
        "factor_error",
        "reference",
        "overfit_gap",
        "distribution",
        "stability",
        "seconds",
    } <= set(found)
    shares = [found[name] for name in ("target_accuracy", "judge_accuracy", "judge_accuracy_top5")]
    shares += found["judges"].values()
    for share in shares:
        assert set(share) == {"value", "low", "high", "n", "naive_low", "naive_high"}
        assert share["n"] == 4
    for name in ("identity_cosine", "knn_distance", "diversity", "perceptual_distance", "overfit_gap"):
        assert set(found[name]) == {"value", "low", "high"}


def test_rows_that_do_not_exist_and_measures_that_do_not_apply_are_left_out() -> None:
    assert metrics(ATTACK)["reference"] == {}
    assert metrics(ATTACK)["versus_start"] is None
    upper = metrics([*ATTACK, *UPPER])["reference"]["upper"]
    assert "perceptual_distance" not in upper
    assert "attribute_error" not in upper
    assert "factor_error" not in upper
    assert upper["knn_distance"]["value"] == pytest.approx(0.8)


def test_intervals_are_clustered_by_class_and_do_not_hang_together() -> None:
    found = metrics(ATTACK, seed=3)
    expected = cluster_bootstrap(
        [record.identity_cosine for record in ATTACK], [0, 0, 1, 1], resamples=200, generator=np.random.default_rng(3)
    )
    assert (found["identity_cosine"]["low"], found["identity_cosine"]["high"]) == expected
    assert metrics([*ATTACK, *START], seed=3)["identity_cosine"] == found["identity_cosine"]
    assert metrics(ATTACK[::-1], seed=3)["judge_accuracy"] == found["judge_accuracy"]


def test_naive_interval_of_a_mean_vote_takes_images_as_trials() -> None:
    votes = [1.0, 0.5, 0.5, 0.0] * 5
    found = vote_rate(votes, np.repeat(np.arange(5), 4).tolist(), generator=np.random.default_rng(0))
    wilson = stats.binomtest(10, 20).proportion_ci(method="wilson")
    assert (found.value, found.n) == (0.5, 20)
    assert (found.naive_low, found.naive_high) == pytest.approx((wilson.low, wilson.high))


def test_one_judge_has_the_rate_of_its_hits() -> None:
    hits, classes = [1.0, 0.0, 1.0, 1.0], [0, 0, 1, 1]
    assert vote_rate(hits, classes, generator=np.random.default_rng(0)) == rate(
        hits, classes, generator=np.random.default_rng(0)
    )


def test_successes_are_the_images_that_every_judge_recognises() -> None:
    found = metrics(ATTACK)["successes"]
    assert (found["classes"], found["samples"]) == (1, 1)
    assert found["identity_cosine"] == {"value": 0.9, "low": None, "high": None}
    assert "diversity" not in found
    assert metrics([record(0, 0, "00"), record(1, 0, "01")])["successes"] == {"classes": 0, "samples": 0}


def test_versus_start_is_paired() -> None:
    found = metrics([*ATTACK, *START[::-1]])["versus_start"]
    assert found["value"] == pytest.approx(0.5 - 0.125)
    # class means 0.5 and 0.25: two classes have four patterns of signs, of which two are as extreme
    assert found["p"] == 0.5
    assert found["effect_size"] == pytest.approx(0.375 / np.std([0.5, 0.25], ddof=1))
    assert found["n"] == 4


def test_versus_start_says_what_it_left_out() -> None:
    found = metrics([*ATTACK, *START[:3]])
    assert found["versus_start"]["n"] == 3
    assert found["notes"] == ["versus_start: over the 3 images that both rows hold."]


def test_a_measure_that_is_not_finite_has_no_mean_and_says_so() -> None:
    found = metrics([*ATTACK[:3], replace(ATTACK[3], identity_cosine=math.nan)], notes=["Ours."])
    assert found["identity_cosine"] is None
    assert found["notes"] == ["Ours.", "identity_cosine: not finite for 1 of 4 images, so it has no mean."]
    assert finite(found)


def test_a_measure_of_some_images_says_so() -> None:
    found = metrics([replace(ATTACK[0], factor_error=0.5), *ATTACK[1:]])
    assert found["factor_error"]["value"] == 0.5
    assert "factor_error: measured on 1 of 4 images." in found["notes"]


def test_one_class_has_no_interval() -> None:
    found = metrics(ATTACK[:2])
    assert (found["judge_accuracy"]["low"], found["judge_accuracy"]["high"]) == (None, None)
    assert found["judge_accuracy"]["naive_low"] is not None


def test_rows_as_sets_are_handed_through() -> None:
    assert metrics(ATTACK)["distribution"] is None
    assert metrics(ATTACK, distribution={"rows": {}})["distribution"] == {"rows": {}}


def test_seconds_and_stability_are_handed_through() -> None:
    found = metrics(ATTACK, seconds={"embed": 1.5, "adapt": math.inf})
    assert found["seconds"] == {"embed": 1.5, "adapt": None}
    assert found["stability"]["steps"] == 0


def test_travel_is_handed_through() -> None:
    assert metrics(ATTACK)["travel"] is None
    assert metrics(ATTACK, travel={"centres": None})["travel"] == {"centres": None}


def test_refuses_records_without_an_attack_and_doubles() -> None:
    with pytest.raises(InvalidSetting, match="'attack'"):
        metrics(START)
    with pytest.raises(InvalidSetting, match=r"\(0, 0\) twice"):
        metrics([*ATTACK, ATTACK[0]])


def test_needs_no_torch() -> None:
    code = "import sys, diffaudit.study.metrics, diffaudit.report.html; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
