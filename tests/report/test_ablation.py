"""The report of an ablation whose numbers are written by hand."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from diffaudit.errors import InvalidSetting
from diffaudit.records import CurvePoint, append_lines, write_json
from diffaudit.report.ablation import write_ablation_report
from diffaudit.report.ablation_cells import difference
from diffaudit.report.ablation_layout import layout_of
from diffaudit.report.ablation_tables import ablation_tables, claims, differences, results
from diffaudit.report.ablation_verdict import Finding, ablation_verdict
from diffaudit.report.html import write_report
from diffaudit.report.wording import Measure

MINUS = "\N{MINUS SIGN}"


def measure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def row(name: str, mode: str | None, judged: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "mode": mode,
        "baseline": name == "baseline",
        "reference": name in ("start", "oracle"),
        "seeds": [0, 1],
        "metrics": {"judge_accuracy": measure(judged), "diversity": measure(0.5), "gap_closed": None},
        "stability": {} if mode is None else {"variation": [0.1, 0.3]},
        "seconds": 61.0,
        "versus_baseline": {},
        "versus_start": {},
    } | more


@pytest.fixture
def ablation() -> dict[str, Any]:
    difference = {
        "difference": -0.125,
        "low": -0.2,
        "high": -0.05,
        "p": 0.0004,
        "p_corrected": 0.0004,
        "by_seed": [-0.1, -0.15],
        "same_sign": True,
        "effect_size": -0.5,
        "odds_ratio": 0.5,
        "odds_low": 0.25,
        "odds_high": None,
        "relative": None,
        "secondary": {"mcnemar": 0.03125, "wilcoxon": 0.25},
    }
    apart = difference | {"difference": 0.25, "p_corrected": 0.5, "same_sign": False, "low": None, "high": None}
    versus = {"judge_accuracy": difference, "diversity": apart}
    claim = {
        "row": "A+B", "says": "success rises by 3 to 5 points", "metric": "judge_accuracy", "of": "difference",
        "low": 0.03, "high": 0.05, "reading": "", "mode": "rollout", "verdict": "opposite", "why": "the other sign",
        "measured": {"value": -0.125, "low": -0.2, "high": -0.05, "same_sign": True},
    }  # fmt: skip
    return {
        "audit": "inversion",
        "name": "study <1>",
        "rows": [
            row("start", None, 0.25),
            row("baseline", "rollout", 0.5),
            row("A+B", "rollout", 0.375, versus_baseline=versus),
            row("oracle", None, 0.75),
        ],
        "contrasts": [{"row": "rollout-A+B", "against": "start", "metrics": {"judge_accuracy": difference}}],
        "claims": [claim, claim | {"mode": None, "measured": None, "verdict": None, "why": "not measured"}],
        "tables": {"weighting": ["baseline", "A+B"]},
        "correction": "column",
        "failures": [{"row": "rollout-C", "seed": 1, "error": "RuntimeError: no memory"}],
        "notes": ["two seeds"],
        "threat_model": {"has": ["the target"], "has_not": ["private pictures"]},
        "settings_hash": "ab" * 32,
        "command": "diffaudit ablate study.yaml",
    }


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_results_by_hand(ablation: dict[str, Any]) -> None:
    head, _, *rows = cells(results(ablation["rows"], layout_of(ablation)).to_markdown())
    assert head == ["Row", "Judge accuracy \N{UPWARDS ARROW}", "Diversity \N{UPWARDS ARROW}", "Variation", "Seconds"]
    assert rows[0] == ["start", "25.0 [15.0, 35.0]", "0.500 [0.400, 0.600]", "-", "61"]
    assert rows[2][0] == "A+B (rollout)"
    assert rows[2][3] == "0.20"
    assert rows[3][0] == "oracle (not an attack)"


def test_differences_by_hand(ablation: dict[str, Any]) -> None:
    rows = cells(differences(ablation["rows"], layout_of(ablation), "column").to_markdown())[2:]
    assert rows == [
        ["A+B (rollout)", f"{MINUS}12.5 [{MINUS}20.0, {MINUS}5.0] p <0.001*", "+0.250 p 0.500 (seeds differ)"]
    ]


def test_a_single_seed_differs_from_none() -> None:
    found = {"difference": 0.0, "low": -0.01, "high": 0.01, "p_corrected": 1.0, "same_sign": False, "by_seed": [0.0]}
    column = Measure("share", "Share", "up", True, "what is counted")
    assert str(difference(found, column)).endswith("p 1.000")
    assert str(difference({**found, "by_seed": [0.01, -0.01]}, column)).endswith("p 1.000 (seeds differ)")


def test_claims_beside_their_measure(ablation: dict[str, Any]) -> None:
    rows = cells(claims(ablation["claims"]).to_markdown())[2:]
    measured = f"{MINUS}12.5 points [{MINUS}20.0, {MINUS}5.0]"
    says = "success rises by 3 to 5 points"
    assert rows[0] == ["A+B (rollout)", says, "+3.0 to +5.0 points", measured, "opposite: the other sign"]
    assert rows[1] == ["A+B", says, "+3.0 to +5.0 points", "-", "not measured"]


def test_every_seed_has_its_say(ablation: dict[str, Any]) -> None:
    (table,) = (table for table in ablation_tables(ablation) if table.name == "by-seed")
    _, _, line = cells(table.to_markdown())
    assert line == ["A+B (rollout)", f"{MINUS}10.0, {MINUS}15.0", f"{MINUS}0.100, {MINUS}0.150"]


def test_secondary_tests_are_called_so(ablation: dict[str, Any]) -> None:
    (table,) = (table for table in ablation_tables(ablation) if table.name == "secondary")
    head, _, line = cells(table.to_markdown())
    assert head[3:] == ["McNemar p (secondary)", "Wilcoxon p (secondary)"]
    assert line == ["A+B (rollout), judge accuracy", f"{MINUS}0.50", "0.50 [0.25, inf)", "0.031", "0.250"]


def test_every_table_is_sound_latex(ablation: dict[str, Any]) -> None:
    tables = ablation_tables(ablation)
    assert [table.name for table in tables if not table.detail] == [
        "weighting-results", "weighting-differences", "contrasts", "claims",
    ]  # fmt: skip
    assert [table.name for table in tables if table.detail] == ["by-seed", "secondary", "results", "differences"]
    for table in tables:
        text = table.to_latex()
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
        assert columns
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns[1])}
        assert all(ord(character) < 128 for line in lines for character in line)


def test_a_report_leaves_tables_figures_a_page_and_a_readme(ablation: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "ablation.json", ablation)
    for name in ("baseline", "A+B"):
        for seed in (0, 1):
            points = [
                CurvePoint(
                    stage="embed", step=step, parts={"id": 1.0 / (1 + step)}, weights={"id": 1.0}, value=0.0,
                    gradient_norm=1.0, target_accuracy=0.5,
                )
                for step in range(30)
            ]  # fmt: skip
            lines = [point.to_json() for point in points]
            append_lines(tmp_path / "runs" / f"rollout-{name}" / str(seed) / "curves.jsonl", lines)
    page = write_ablation_report(tmp_path).read_text(encoding="utf-8")
    assert "study &lt;1&gt;" in page
    assert "The attacker has" in page
    assert "<li>private pictures</li>" in page
    assert "src=" not in page
    assert page.count("<svg") == 4
    figures = {path.name for path in (tmp_path / "figures").iterdir()}
    assert figures == {
        f"{stem}.{kind}"
        for stem in ("rows", *(f"weighting-rollout-{what}" for what in ("accuracy", "term-id", "weight-id")))
        for kind in ("png", "svg")
    }
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    for words in ("diffaudit ablate study.yaml", "rollout-C, seed 1, failed: RuntimeError: no memory", "## Claims"):
        assert words in readme
    assert "| A+B (rollout) |" in (tmp_path / "tables" / "results.md").read_text()
    assert json.loads((tmp_path / "ablation.json").read_text()) == ablation


def test_without_tables_of_ones_own_every_row_comes_first(ablation: dict[str, Any]) -> None:
    tables = ablation_tables(ablation | {"tables": {}})
    assert [table.name for table in tables if not table.detail] == ["results", "differences", "contrasts", "claims"]
    assert tables[0].notes


def test_a_table_of_ones_own_keeps_the_rows_of_reference(ablation: dict[str, Any]) -> None:
    found, apart = ablation_tables(ablation | {"tables": {"within-B": ["baseline", "A+B"]}})[:2]
    assert (found.name, found.heading, apart.heading) == ("within-B-results", "Within-B", "Within-B: differences")
    assert [title for title, _ in found.lines] == [
        "start", "baseline (rollout)", "A+B (rollout)", "oracle (not an attack)",
    ]  # fmt: skip


def test_findings_by_hand(ablation: dict[str, Any]) -> None:
    below = f"A+B (rollout) {MINUS}12.5 [{MINUS}20.0, {MINUS}5.0] p <0.001*"
    references = ("start 25.0 [15.0, 35.0]", "oracle (not an attack) 75.0 [65.0, 85.0]")
    assert ablation_verdict(ablation) == [
        Finding("Highest judge accuracy, in percent", ("baseline (rollout) 50.0 [40.0, 60.0]", *references)),
        Finding("Below it", (below,)),
    ]
    chance = ablation["rows"][2]["versus_baseline"]["judge_accuracy"] | {"p_corrected": 0.05}
    above = ablation["rows"][2]["versus_baseline"]["judge_accuracy"] | {"difference": 0.25}
    ablation["rows"] += [
        row("C", "rollout", 0.4, versus_baseline={"judge_accuracy": chance}),
        row("B", "rollout", 0.4, versus_baseline={"judge_accuracy": above}),
    ]
    _, better, worse, unseen = ablation_verdict(ablation)
    assert (better.what, worse.rows) == ("Above the baseline of its mode, in points", (below,))
    assert better.rows == (f"B (rollout) +25.0 [{MINUS}20.0, {MINUS}5.0] p <0.001*",)
    assert unseen == Finding("No difference seen", (f"C (rollout) {MINUS}12.5 [{MINUS}20.0, {MINUS}5.0] p 0.050",))


def test_report_knows_an_ablation_by_its_file(ablation: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "ablation.json", ablation | {"rows": ablation["rows"][:1]})
    assert "Ablation: study" in write_report(tmp_path).read_text(encoding="utf-8")


def test_a_folder_without_an_ablation_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"`ablation` should be a folder with an `ablation.json`"):
        write_ablation_report(tmp_path)
