import json
import re
from pathlib import Path
from typing import Any

import pytest

from diffaudit.report.tables import judges_table, naive_table, results_table, to_latex, to_markdown

from .conftest import MakeRun


@pytest.fixture
def metrics(make_run: MakeRun) -> dict[str, Any]:
    run: Path = make_run()
    found: dict[str, Any] = json.loads((run / "metrics.json").read_text())
    return found


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_markdown_parses(metrics: dict[str, Any]) -> None:
    head, rule, *rows = cells(to_markdown(results_table(metrics)))
    assert {len(row) for row in (head, rule, *rows)} == {len(head)}
    assert [row[0] for row in rows] == [
        "Photographs of the real people",
        "Attack",
        "Attack, successes alone",
        "Start",
        "Photographs of other people",
    ]
    assert [row[1:3] for row in rows][:3] == [["16", "8"], ["16", "8"], ["12", "6"]]
    accuracy = head.index("Judge accuracy \N{UPWARDS ARROW}")
    assert rows[1][accuracy].startswith("75.0 [")
    assert rows[2][accuracy] == "-"
    assert rows[0][head.index("Distance to source \N{DOWNWARDS ARROW}")] == "-"
    assert rows[1][head.index("Identity cosine \N{UPWARDS ARROW}")].startswith("\N{MINUS SIGN}0.250 [")
    assert "Pose error \N{DOWNWARDS ARROW}" in head
    assert not any("Factor" in title for title in head)


def test_latex_parses(metrics: dict[str, Any]) -> None:
    for table in (results_table(metrics), judges_table(metrics), naive_table(metrics)):
        text = to_latex(table)
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
        assert columns
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns[1])}
        assert [text.count(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")] == [1, 1, 1]
        assert all(ord(character) < 128 for line in lines for character in line)
        assert text.count("{") == text.count("}")


def test_latex_escapes(metrics: dict[str, Any]) -> None:
    votes = metrics["judges"].pop("plain")
    metrics["judges"] = {"my_judge & 50 %": votes}
    assert r"my\_judge \& 50 \%" in to_latex(judges_table(metrics))


def test_judges_with_dots_in_their_names(metrics: dict[str, Any]) -> None:
    for row in (metrics, *metrics["reference"].values()):
        row["judges"] = {"net.v1": row["judges"]["plain"]}
    rows = cells(to_markdown(judges_table(metrics)))
    assert rows[0][3] == "net.v1 \N{UPWARDS ARROW}"
    assert rows[3][3].startswith("75.0 [")


def test_naive_intervals_are_named_so(metrics: dict[str, Any]) -> None:
    text = to_markdown(naive_table(metrics))
    accuracy = metrics["judge_accuracy"]
    assert text.startswith("Naive")
    assert f"75.0 [{100 * accuracy['naive_low']:.1f}, {100 * accuracy['naive_high']:.1f}]" in text


def test_optimised_pixels_are_marked_beside_the_attack(metrics: dict[str, Any]) -> None:
    metrics["reference"]["attack-finished"] = metrics["reference"]["start"]
    said = "Attack, optimised pixels (not a reconstruction: these are adversarial examples of the target)"
    for table in (results_table(metrics), judges_table(metrics), naive_table(metrics)):
        rows = [row[0] for row in cells(to_markdown(table))]
        assert rows[rows.index("Attack") + 1] == said
        assert said in to_latex(table)


def test_an_oracle_is_marked(metrics: dict[str, Any]) -> None:
    metrics["reference"]["oracle"] = metrics["reference"]["start"]
    assert "True private embedding (not an attack)" in to_markdown(results_table(metrics))
    assert "True private embedding (not an attack)" in to_latex(results_table(metrics))
