"""The report of an ablation of perturbations whose numbers are written by hand."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffaudit.records import write_json
from diffaudit.report.ablation import write_ablation_report
from diffaudit.report.ablation_figures import ablation_frontier
from diffaudit.report.ablation_layout import layout_of
from diffaudit.report.ablation_tables import RowTable, ablation_tables
from diffaudit.report.ablation_verdict import Finding, ablation_verdict

from .conftest import Page

UP, DOWN, MINUS = "\N{UPWARDS ARROW}", "\N{DOWNWARDS ARROW}", "\N{MINUS SIGN}"


def measure(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def row(name: str, transfer: float, distance: float, **more: Any) -> dict[str, Any]:
    return {
        "name": name,
        "mode": None,
        "baseline": name == "baseline",
        "reference": name in ("rebuilt", "pgd-8", "pgd-4"),
        "seeds": [0, 1],
        "metrics": {
            "transfer_mean": measure(transfer),
            "transfer.one": measure(transfer),
            "transfer.Two": measure(transfer),
            "white_box_mean": measure(0.75),
            "defended.jpeg-75": measure(0.5),
            "perceptual_distance": measure(distance),
            "psnr": measure(30.0),
        },
        "stability": {},
        "seconds": 61.0,
        "versus_baseline": {},
        "versus_start": {},
    } | more


@pytest.fixture
def ablation() -> dict[str, Any]:
    difference = {
        "difference": 0.125, "low": 0.05, "high": 0.2, "p": 0.0004, "p_corrected": 0.0008, "by_seed": [0.1, 0.15],
        "same_sign": True, "effect_size": 0.5, "odds_ratio": 3.0, "odds_low": 1.25, "odds_high": 8.0, "relative": None,
        "secondary": {"mcnemar": 0.03125, "wilcoxon": 0.25},
    }  # fmt: skip
    farther = difference | {"odds_ratio": None, "odds_low": None, "odds_high": None, "difference": 0.0125}
    versus = {"transfer_mean": difference, "transfer.Two": difference, "perceptual_distance": farther}
    return {
        "audit": "perturbation",
        "name": "study",
        "clusters": "images",
        "rows": [
            row("rebuilt", 0.125, 0.0625, seconds=None),
            row("baseline", 0.5, 0.25),
            row("full", 0.625, 0.2625, versus_baseline=versus),
            row("pgd-4", 0.25, 0.125),
            row("pgd-8", 0.5, 0.375),
        ],
        "contrasts": [{"row": "full", "against": "pgd-8", "metrics": {"transfer_mean": difference}}],
        "claims": [],
        "tables": {"ensembles": ["baseline", "full"]},
        "correction": "column",
        "failures": [],
        "notes": [],
        "settings_hash": "ab" * 32,
        "command": "diffaudit ablate study.yaml",
    }


def named(ablation: dict[str, Any], name: str) -> RowTable:
    return next(table for table in ablation_tables(ablation) if table.name == name)


def cells(table: RowTable) -> list[list[str]]:
    lines = [line for line in table.to_markdown().splitlines() if line[:1] == "|"]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_results_by_hand(ablation: dict[str, Any]) -> None:
    head, _, *rows = cells(named(ablation, "results"))
    assert head == [
        "Row", f"Surrogates fooled {UP}", f"Held-out models fooled {UP}", f"Held-out one {UP}", f"Held-out Two {UP}",
        f"Behind jpeg-75 {UP}", f"Perceptual distance {DOWN}", f"PSNR, dB {UP}", "Seconds",
    ]  # fmt: skip
    assert [line[0] for line in rows] == [
        "rebuilt, no perturbation (not an attack)",
        "baseline",
        "full",
        "PGD 4/255 (on pixels)",
        "PGD 8/255 (on pixels)",
    ]
    assert rows[2][2] == "62.5 [52.5, 72.5]"
    assert rows[2][6:] == ["0.2625 [0.1625, 0.3625]", "30.0 [29.9, 30.1]", "61"]
    assert rows[0][8] == "-"
    assert "clustered by picture, the seeds nested in it" in named(ablation, "results").caption


def test_differences_by_hand(ablation: dict[str, Any]) -> None:
    table = named(ablation, "differences")
    assert "paired by picture and seed" in table.caption
    assert "mode" not in table.caption
    head, _, line = cells(table)
    assert head[1:] == [f"Held-out models fooled {UP}", f"Held-out Two {UP}", f"Perceptual distance {DOWN}"]
    assert line == ["full", *["+12.5 [+5.0, +20.0] p <0.001*"] * 2, "+0.0125 [+0.0500, +0.2000] p <0.001*"]


def test_secondary_tests_say_what_they_take_as_independent(ablation: dict[str, Any]) -> None:
    table = named(ablation, "secondary")
    assert "take pairs of a picture and a model as independent" in table.caption
    _, _, *lines = cells(table)
    assert lines == [
        ["full, held-out models fooled", "0.50", "3.00 [1.25, 8.00]", "0.031", "0.250"],
        ["full, held-out Two", "0.50", "3.00 [1.25, 8.00]", "0.031", "0.250"],
        ["full, perceptual distance", "0.50", "-", "0.031", "0.250"],
    ]


def test_many_held_out_models_have_no_column_each(ablation: dict[str, Any]) -> None:
    for found in ablation["rows"]:
        found["metrics"] |= {f"transfer.{name}": measure(0.5) for name in ("three", "four", "five")}
    assert not [column for column in layout_of(ablation).columns if column.key.startswith("transfer.")]


def test_every_table_is_sound_latex(ablation: dict[str, Any]) -> None:
    tables = [table for table in ablation_tables(ablation) if table.lines]
    assert [table.name for table in tables] == [
        "ensembles-results", "ensembles-differences", "contrasts", "by-seed", "secondary", "results", "differences",
    ]  # fmt: skip
    for table in tables:
        text = table.to_latex()
        columns = re.search(r"\\begin\{tabular\}\{(\w+)\}", text)
        assert columns
        lines = [line for line in text.splitlines() if line.endswith(r"\\")]
        assert {len(re.findall(r"(?<!\\)&", line)) + 1 for line in lines} == {len(columns[1])}


def test_rows_are_points_by_name_and_budgets_are_joined(ablation: dict[str, Any]) -> None:
    figure = ablation_frontier(ablation["rows"], layout_of(ablation).headline)
    assert figure is not None
    axes = figure.axes[0]
    marked = {str(line.get_label()): line for line in axes.lines if line.get_marker() in ("o", "s", "D")}
    assert [(label, line.get_marker(), line.get_linestyle()) for label, line in marked.items()] == [
        ("baseline", "s", "None"),
        ("rows", "o", "None"),
        ("PGD", "o", "-"),
        ("Rebuilt, no perturbation", "D", "None"),
    ]
    assert np.array_equal(marked["PGD"].get_xydata(), [[0.125, 25.0], [0.375, 50.0]])
    assert {text.get_text() for text in axes.texts} >= {"baseline", "full", "4/255", "8/255"}


def test_a_report_leaves_tables_figures_a_page_and_a_readme(ablation: dict[str, Any], tmp_path: Path) -> None:
    write_json(tmp_path / "ablation.json", ablation)
    text = write_ablation_report(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert page.stack == []
    assert "src=" not in text
    assert "Ablation, perturbation audit" in page.words
    assert len(page.all("svg")) == 2
    assert "Trainings" not in page.words
    stems = {path.name for path in (tmp_path / "figures").iterdir()}
    assert stems == {f"{stem}.{kind}" for stem in ("frontier", "rows") for kind in ("png", "svg")}
    readme = (tmp_path / "README.md").read_text(encoding="utf-8")
    for words in (
        "perturbation audit",
        "`diffaudit ablate study.yaml`",
        "took about 8 min 8 s",
        "figures/frontier.png",
    ):
        assert words in readme
    assert "Claims" not in readme


def test_a_readme_without_known_seconds_speaks_of_none(ablation: dict[str, Any], tmp_path: Path) -> None:
    ablation["rows"] = [found | {"seconds": None} for found in ablation["rows"]]
    write_json(tmp_path / "ablation.json", ablation)
    write_ablation_report(tmp_path)
    assert "made by `diffaudit ablate study.yaml`.\n" in (tmp_path / "README.md").read_text(encoding="utf-8")


def test_without_held_out_models_the_white_box_leads(ablation: dict[str, Any], tmp_path: Path) -> None:
    for found in ablation["rows"]:
        found["metrics"] = {key: value for key, value in found["metrics"].items() if not key.startswith("transfer")}
    assert layout_of(ablation).headline.key == "white_box_mean"
    figure = ablation_frontier(ablation["rows"], layout_of(ablation).headline)
    assert figure is not None
    assert figure.axes[0].get_ylabel() == "surrogates fooled, in %"
    write_json(tmp_path / "ablation.json", ablation)
    assert len(Page(write_ablation_report(tmp_path).read_text(encoding="utf-8")).all("svg")) == 2


def test_where_labels_can_be_asked_again_what_keeps_them_leads(ablation: dict[str, Any]) -> None:
    for found in ablation["rows"]:
        found["metrics"] |= {"transfer_kept": measure(0.3), "label_kept": measure(0.7)}
    layout = layout_of(ablation)
    assert layout.headline.key == "transfer_kept"
    keys = [column.key for column in layout.columns]
    assert keys[1:4] == ["transfer_mean", "transfer_kept", "label_kept"]
    figure = ablation_frontier(ablation["rows"], layout.headline)
    assert figure is not None
    assert figure.axes[0].get_ylabel() == "held-out models fooled, label kept, in %"


def test_each_row_is_held_against_the_attacks_on_pixels_at_its_distance(ablation: dict[str, Any]) -> None:
    """PGD comes to 25 % at 0.125 and, were it to go on so, to 50 % at 0.25: it is given that, its 8/255 has no more."""
    ablation["rows"] += [
        row("clear", 0.75, 0.25),
        row("nearer", 0.5, 0.0625),
        row("unknown", 0.125, 0.0625),
        row("rebuilt", 1.0, 0.01),
    ]
    at = "an attack on pixels at no larger a perceptual distance"
    above = f"Above every {at.removeprefix('an ')}"
    between, farther = "PGD between 4/255 and 8/255 50.0", "PGD 4/255 (farther) 25.0"
    assert ablation_verdict(ablation)[2:] == [
        Finding(f"{above}, in percent", (f"clear 75.0, {between}", f"nearer 50.0, {farther}")),
        Finding(f"{above}, but intervals overlap, in percent", (f"full 62.5, {between}",)),
        Finding("Below an attack on pixels that was run farther away alone, in percent", (f"unknown 12.5, {farther}",)),
        Finding(f"Reached by {at}, in percent", (f"baseline 50.0, {between}",)),
    ]


def test_without_an_attack_on_pixels_no_row_is_held_against_one(ablation: dict[str, Any]) -> None:
    ablation["rows"] = [line for line in ablation["rows"] if not line["name"].startswith("pgd")]
    assert [finding.what for finding in ablation_verdict(ablation)] == [
        "Highest held-out models fooled, in percent",
        "Above the baseline, in points",
    ]
