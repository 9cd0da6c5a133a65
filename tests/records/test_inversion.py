"""Records on disk: what is written reads back, and a kill costs at most the line that was being written."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from diffaudit.records import (
    CurvePoint,
    HealthPoint,
    JudgeVote,
    Record,
    append_lines,
    read_curves,
    read_health,
    read_records,
)

FULL = Record(
    row="attack",
    label=3,
    sample=0,
    source=17,
    image="images/attack/3-0.png",
    source_image="images/source/17.png",
    target_hit=True,
    target_log_probability=-0.1,
    judges={
        "a": JudgeVote(predicted=3, hit=True, top5=True),
        "b": JudgeVote(predicted=5, hit=False, top5=True),
        "ü": JudgeVote(predicted=8, hit=False, top5=False),
    },
    identity_cosine=0.1 + 0.2,
    knn_distance=1e-17,
    diversity=0.5,
    perceptual_distance=0.25,
    attribute_error={"yaw": 0.125},
    factor_error=1.5,
)
PHOTOGRAPH = replace(
    FULL, row="upper", source=None, source_image=None, diversity=None, perceptual_distance=None, attribute_error=None,
    factor_error=None,
)  # fmt: skip
POINT = CurvePoint(
    stage="embed", step=1, parts={"cls": 0.1}, weights={"cls": 1.0}, value=0.1, gradient_norm=2.0, target_accuracy=0.5
)


def test_records_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "run" / "records.jsonl"
    append_lines(path, [FULL.to_json()])
    append_lines(path, [PHOTOGRAPH.to_json(), FULL.to_json()])
    assert read_records(path) == [FULL, PHOTOGRAPH, FULL]
    assert len(path.read_text().splitlines()) == 3


LOOK = HealthPoint(
    stage="embed",
    step=1,
    norm_error={"anchor": 1e-7},
    positives=None,
    negatives=None,
    gradient_norms={"cls": 0.1},
    gradient_cosines={"cls": {"id": None}},
    satisfied={"cls": 0.5},
    weights={"cls": 1.0},
    log_variances={},
    at_clamp={},
    centre_travel=None,
)


def test_curves_read_back_equal(tmp_path: Path) -> None:
    append_lines(tmp_path / "curves.jsonl", [json.dumps(asdict(POINT))])
    assert read_curves(tmp_path / "curves.jsonl") == [POINT]


def test_a_run_that_has_not_begun_has_no_records(tmp_path: Path) -> None:
    assert read_records(tmp_path / "records.jsonl") == []
    assert read_curves(tmp_path / "curves.jsonl") == []


@pytest.mark.parametrize("kept", range(0, len(FULL.to_json()) + 1, 37))
def test_a_last_line_cut_anywhere_is_passed_over(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(PHOTOGRAPH.to_json() + "\n" + FULL.to_json()[:kept])
    assert read_records(path) == [PHOTOGRAPH]


def test_a_last_line_cut_within_a_character_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes((PHOTOGRAPH.to_json() + "\n").encode() + "ü".encode()[:1])
    assert read_records(path) == [PHOTOGRAPH]


def test_a_text_that_holds_other_line_ends_stays_one_line(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(json.dumps({**asdict(FULL), "image": "a\u2028b\x85c"}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert [record.image for record in read_records(path)] == ["a\u2028b\x85c"]


def test_accuracy_is_the_share_of_judges() -> None:
    assert FULL.judge_accuracy == 1 / 3
    assert FULL.judge_accuracy_top5 == 2 / 3


def test_looks_read_back_equal(tmp_path: Path) -> None:
    pair = replace(LOOK, positives=(0.1, 0.9))
    append_lines(tmp_path / "health.jsonl", [LOOK.to_json(), pair.to_json()])
    assert read_health(tmp_path / "health.jsonl") == [LOOK, pair]
