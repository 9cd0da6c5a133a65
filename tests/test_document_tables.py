"""The tables that the documents take from measured files."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diffaudit.report.wording import MINUS

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_tables", REPOSITORY / "docs" / "make_tables.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(name: str, mode: str | None, judged: float, gain: float | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "mode": mode,
        "reference": mode is None,
        "seeds": [0],
        "seconds": None,
        "stability": {},
        "metrics": {"judge_accuracy": {"value": judged, "low": judged - 0.1, "high": judged + 0.1}},
        "versus_baseline": {} if gain is None else {"judge_accuracy": difference(gain)},
    }


def difference(gain: float) -> dict[str, Any]:
    unknown = {"effect_size": None, "odds_ratio": None, "secondary": {"mcnemar": None, "wilcoxon": None}}
    ends = {"difference": gain, "low": gain - 0.05, "high": gain + 0.05}
    return ends | unknown | {"p_corrected": 0.003, "same_sign": True, "odds_low": None}


@pytest.fixture
def ablation() -> dict[str, Any]:
    one, many = ("one_step", "rollout")
    return {
        "audit": "inversion",
        "rows": [
            row("start", None, 0.5),
            *(row("baseline", mode, judged) for mode, judged in ((one, 0.6), (many, 0.7))),
            *(row("B", mode, judged, 0.1) for mode, judged in ((one, 0.7), (many, 0.8))),
            row("B-alone", many, 0.75, 0.05),
        ],
        "contrasts": [
            {"row": "rollout-B-alone", "against": "rollout-B", "metrics": {"judge_accuracy": difference(-0.05)}}
        ],
        "tables": {"schemes": ["start", "baseline", "B"], "within": ["B", "B-alone"]},
        "correction": "column",
        "claims": [],
    }


def lines(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.strip().splitlines()]


def test_rows_of_both_modes_have_one_line(script: ModuleType, ablation: dict[str, Any]) -> None:
    head, _, *rows = lines(script.table_of(ablation, "schemes"))
    assert head == ["Row", "one step", "difference from its baseline", "rollout", "difference from its baseline"]
    assert rows == [
        ["start", "50.0 [40.0, 60.0]", "", "50.0 [40.0, 60.0]", ""],
        ["baseline", "60.0 [50.0, 70.0]", "", "70.0 [60.0, 80.0]", ""],
        [
            "B",
            *("70.0 [60.0, 80.0]", "+10.0 [+5.0, +15.0] p 0.003*"),
            *("80.0 [70.0, 90.0]", "+10.0 [+5.0, +15.0] p 0.003*"),
        ],
    ]


def test_a_table_of_one_mode_says_what_each_row_is_worth_beside_the_first(
    script: ModuleType, ablation: dict[str, Any]
) -> None:
    head, _, *rows = lines(script.table_of(ablation, "within"))
    assert head == ["Row", "Judge accuracy", "difference from the baseline", "from B"]
    less = f"{MINUS}5.0 [{MINUS}10.0, 0.0] p 0.003*"
    assert rows == [
        ["B", "80.0 [70.0, 90.0]", "+10.0 [+5.0, +15.0] p 0.003*", ""],
        ["B-alone", "75.0 [65.0, 85.0]", "+5.0 [0.0, +10.0] p 0.003*", less],
    ]


def test_no_row_is_left_out_in_silence(script: ModuleType, ablation: dict[str, Any]) -> None:
    ablation["rows"].append(row("A-alone", "one_step", 0.6, 0.0))
    ablation["tables"]["within"].append("A-alone")
    with pytest.raises(ValueError, match=r"`within` should .* Found no one_step of \['B-alone'\]"):
        script.table_of(ablation, "within")


def test_what_stands_between_the_marks_is_replaced(
    script: ModuleType, ablation: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "found.json").write_text(json.dumps(ablation))
    monkeypatch.setattr(script, "REPOSITORY", tmp_path)
    page = "before\n<!-- table: found.json within -->\nold\n<!-- end of table -->\nafter"
    new = script.rewritten(page)
    assert new.startswith("before\n<!-- table: found.json within -->\n| Row |")
    assert new.endswith("\n<!-- end of table -->\nafter")
    assert "old" not in new
    assert script.rewritten(new) == new


def test_all_rows_have_a_line_with_their_mode(script: ModuleType, ablation: dict[str, Any]) -> None:
    _, _, *rows = lines(script.table_of(ablation, "rows"))
    names = ["start", "baseline (one step)", "baseline (rollout)", "B (one step)", "B (rollout)", "B-alone (rollout)"]
    assert [row[0] for row in rows] == names


def test_a_table_of_the_report_comes_with_its_caption(script: ModuleType, ablation: dict[str, Any]) -> None:
    caption, _, *rows = script.table_of(ablation, "contrasts").splitlines()
    assert caption.startswith("First row minus the second, paired by class and seed")
    assert lines("\n".join(rows))[2][0] == "rollout-B-alone against rollout-B"


def test_a_table_of_perturbations_has_their_measures(script: ModuleType, ablation: dict[str, Any]) -> None:
    names = ("white_box_mean", "transfer_mean", "sibling.squeezenet", "defended.jpeg-75", "perceptual_distance")
    fooled = row("full", None, 0.5) | {
        "reference": False,
        "metrics": {name: {"value": 0.5, "low": 0.4, "high": 0.6} for name in names},
        "versus_baseline": {"transfer_mean": difference(0.1)},
    }
    perturbed = ablation | {"audit": "perturbation", "rows": [fooled], "contrasts": []}
    head, _, line = lines(script.table_of(perturbed, "rows"))
    assert head == [
        "Row", "Surrogates fooled", "Held-out models fooled", "squeezenet (sibling)", "Perceptual distance",
        "difference from the baseline",
    ]  # fmt: skip
    half = "50.0 [40.0, 60.0]"
    assert line == ["full", half, half, half, "0.5000 [0.4000, 0.6000]", "+10.0 [+5.0, +15.0] p 0.003*"]
    head, _, line = lines(script.table_of(perturbed, "defences"))
    assert head == ["Row", "Held-out models fooled", "Behind jpeg-75"]
    assert line == ["full", half, half]


def test_marks_that_lead_nowhere_are_refused(script: ModuleType, ablation: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"`sceme` should be one of rows, defences, schemes, within"):
        script.table_of(ablation, "sceme")
    with pytest.raises(ValueError, match="should have its `<!-- end of table -->`"):
        script.rewritten("<!-- table: found.json within -->\nold")


def test_no_document_has_an_older_table(script: ModuleType) -> None:
    """Otherwise: `python docs/make_tables.py`."""
    texts = {page: page.read_text(encoding="utf-8") for page in script.PAGES}
    assert any(script.MARK in text for text in texts.values())
    assert [page.name for page, text in texts.items() if script.rewritten(text) != text] == []
