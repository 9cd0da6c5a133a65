import json
from pathlib import Path
from typing import Any

import pytest

from diffaudit.report.distribution import SET_MEASURES, distribution_table
from diffaudit.report.html import write_report
from diffaudit.report.tables import ARROWS, to_latex, to_markdown
from diffaudit.report.wording import DIRECTIONS

from .conftest import MakeRun, Page

QUESTION = "Do the pictures look like photographs of these people, as a set?"


def row(**values: Any) -> dict[str, Any]:
    known = {name: {"value": 0.5, "low": None, "high": None} for name in ("precision", "recall", "density", "coverage")}
    kernel = {"value": -0.0125, "low": -0.05, "high": 0.025}
    return {"n": 80, "kernel_distance": kernel, "frechet_distance": None, **known, **values}


@pytest.fixture
def metrics() -> dict[str, Any]:
    rows = {"public": row(), "attack": row(), "oracle": row(recall=None)}
    return {"distribution": {"space": "the space", "references": 160, "classes": 20, "rows": rows}}


def rewritten(run: Path, **changes: Any) -> Path:
    path = run / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return run


def cells(markdown: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line[:1] == "|"]


def test_markdown_by_hand(metrics: dict[str, Any]) -> None:
    table = distribution_table(metrics)
    assert table is not None
    head, _, *rows = cells(to_markdown(table))
    down, up = "\N{DOWNWARDS ARROW}", "\N{UPWARDS ARROW}"
    assert head == [
        "Row", "Images", "Classes", f"Kernel distance {down}", f"Precision {up}", f"Recall {up}",
        "Density \N{RIGHTWARDS ARROW}1", f"Coverage {up}",
    ]  # fmt: skip
    minus = "\N{MINUS SIGN}"
    kernel = f"{minus}0.013 [{minus}0.050, 0.025]"
    assert rows == [
        ["True private embedding (not an attack)", "80", "20", kernel, "50.0", "-", "0.500", "50.0"],
        ["Attack", "80", "20", kernel, "50.0", "50.0", "0.500", "50.0"],
        ["Public photographs of other people", "80", "-", kernel, "50.0", "50.0", "0.500", "50.0"],
    ]


def test_latex_has_a_cell_a_column(metrics: dict[str, Any]) -> None:
    table = distribution_table(metrics)
    assert table is not None
    lines = [line for line in to_latex(table).splitlines() if line.endswith(r"\\")]
    assert {line.count("&") for line in lines} == {7}
    assert r"Density $\to 1$" in lines[0]


def test_every_direction_is_explained() -> None:
    assert {measure.direction for measure in SET_MEASURES} <= DIRECTIONS.keys() & ARROWS.keys()


def test_a_measure_that_some_row_has_is_a_column(metrics: dict[str, Any]) -> None:
    metrics["distribution"]["rows"]["attack"]["frechet_distance"] = {"value": 0.25, "low": None, "high": None}
    table = distribution_table(metrics)
    assert table is not None
    assert [column.key for column in table.columns] == [measure.key for measure in SET_MEASURES]


@pytest.mark.parametrize("found", [{}, {"distribution": None}])
def test_a_run_without_sets_has_no_table(found: dict[str, Any]) -> None:
    assert distribution_table(found) is None


def test_rows_too_small_for_every_measure_make_no_table(metrics: dict[str, Any]) -> None:
    rows = metrics["distribution"]["rows"]
    metrics["distribution"]["rows"] = {name: {"n": 4} | dict.fromkeys(row().keys() - {"n"}) for name in rows}
    assert distribution_table(metrics) is None


def test_the_page_asks_and_answers(make_run: MakeRun, metrics: dict[str, Any]) -> None:
    run = rewritten(make_run(), **metrics, notes=["frechet_distance: needs more."])
    words = Page(write_report(run).read_text(encoding="utf-8")).words
    assert QUESTION in words
    assert "80 images a row against 160 held-out photographs" in words
    assert "in one space: the space" in words
    assert "FID with another network" in words
    assert words.index(QUESTION) < words.index("frechet_distance: needs more.")
    assert {path.suffix for path in (run / "tables").glob("distribution.*")} == {".md", ".tex"}


def test_a_run_of_an_older_version_has_a_page_without(make_run: MakeRun) -> None:
    run = make_run()
    path = run / "metrics.json"
    older = json.loads(path.read_text())
    del older["distribution"]
    path.write_text(json.dumps(older))
    words = Page(write_report(run).read_text(encoding="utf-8")).words
    assert QUESTION not in words
    assert "FID" not in words
    assert not list((run / "tables").glob("distribution.*"))
