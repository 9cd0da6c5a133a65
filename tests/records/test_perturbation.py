"""Records of adversarial images read back as they were written."""

from dataclasses import replace
from pathlib import Path

import pytest

from diffaudit.records import PerturbationRecord, append_lines, read_perturbation_records

FULL = PerturbationRecord(
    row="attack",
    image=7,
    name="face-0007",
    label=3,
    goal=5,
    picture="images/attack/00007.png",
    clean_picture="images/clean/00007.png",
    clean_hits={"a": True, "b": False},
    predicted={"a": 5, "b": 2},
    fooled={"a": True, "b": False},
    defended={"jpeg": {"a": 1.0, "b": None}, "resize": {"a": 2 / 3, "b": None}},
    perceptual_distance=0.1 + 0.2,
    ssim=0.9,
    psnr=31.5,
    l2=1e-17,
    linf=0.125,
    colour_difference=2.3,
    reconstruction_psnr=40.0,
    iterations=30,
)
PIXELS = replace(FULL, row="pgd-8", goal=None, defended={}, psnr=None, reconstruction_psnr=None, iterations=None)


def test_records_read_back_equal(tmp_path: Path) -> None:
    path = tmp_path / "run" / "records.jsonl"
    append_lines(path, [FULL.to_json(), PIXELS.to_json()])
    assert read_perturbation_records(path) == [FULL, PIXELS]


def test_a_run_that_has_not_begun_has_no_records(tmp_path: Path) -> None:
    assert read_perturbation_records(tmp_path / "records.jsonl") == []


def test_a_last_line_cut_off_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(FULL.to_json() + "\n" + PIXELS.to_json()[:100])
    assert read_perturbation_records(path) == [FULL]


def test_what_is_not_finite_is_not_written() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(FULL, psnr=float("inf")).to_json()


def test_an_unknown_key_is_refused() -> None:
    with pytest.raises(TypeError, match="extra"):
        PerturbationRecord.from_json(FULL.to_json()[:-1] + ', "extra": 1}')
