"""Tables of a perturbation: an attack a line, a model a line, directions printed."""

import json
from typing import Any

import pytest

from diffaudit.report.perturbation_tables import (
    attacks_table,
    defences_table,
    distances_table,
    models_table,
    white_box_defences_table,
)
from diffaudit.report.perturbation_wording import attack_title
from diffaudit.report.tables import Table, to_latex, to_markdown

from .conftest import MakePerturbed


@pytest.fixture
def metrics(make_perturbed: MakePerturbed) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((make_perturbed() / "metrics.json").read_text())
    return found


def values(table: Table) -> list[list[str]]:
    return [[line.row.title, *(cell.value for cell in line.cells)] for line in table.lines]


def test_attacks_side_by_side(metrics: dict[str, Any]) -> None:
    table = attacks_table(metrics)
    assert [column.key for column in table.columns] == [
        "transfer_mean", "white_box_mean", "perceptual_distance", "seconds_per_image",
    ]  # fmt: skip
    # The reference fools one of two models on one of six pictures.
    assert values(table) == [
        ["Attack", "66.7", "100.0", "0.2500", "2.00"],
        ["PGD 8/255", "8.3", "0.0", "0.2500", ""],
    ]


def test_what_is_rebuilt_is_no_attack(make_perturbed: MakePerturbed) -> None:
    found = json.loads((make_perturbed(rows=("attack", "rebuilt")) / "metrics.json").read_text())
    line = attacks_table(found).lines[1]
    assert (line.row.title, line.row.note, line.row.warning) == (
        "Rebuilt, no perturbation",
        "DDIM inversion and decoding alone",
        "not an attack",
    )
    assert "bootstraps over pictures" in attacks_table(found).caption


def test_models_stand_by_role_with_every_attack(metrics: dict[str, Any]) -> None:
    table = models_table(metrics)
    assert [column.title for column in table.columns] == ["Clean accuracy", "Attack", "PGD 8/255"]
    assert values(table) == [
        ["seen", "100.0", "100.0", "0.0"],
        ["one", "100.0", "66.7", "16.7"],
        ["two", "83.3", "60.0", "0.0"],
        ["kin", "100.0", "100.0", "0.0"],
    ]
    assert [line.row.warning for line in table.lines] == ["", "", "", "not counted as transfer"]


def test_defences_are_read_against_none(metrics: dict[str, Any]) -> None:
    table = defences_table(metrics)
    assert [column.title for column in table.columns] == ["No defence", "Behind jpeg-75"]
    assert values(table)[0] == ["Attack", "66.7", "33.3"]
    assert values(white_box_defences_table(metrics))[0] == ["Attack", "50.0"]


def test_directions_are_printed(metrics: dict[str, Any]) -> None:
    markdown = to_markdown(distances_table(metrics))
    assert "- SSIM: higher: less visible." in markdown
    assert "- L2: lower: less visible." in markdown
    assert "| PSNR, dB \N{UPWARDS ARROW} |" in markdown
    assert r"L-inf $\downarrow$" in to_latex(distances_table(metrics))
    assert r"Seconds an image $\downarrow$" in to_latex(attacks_table(metrics))


@pytest.mark.parametrize(
    ("row", "title"), [("attack", "Attack"), ("pgd-16", "PGD 16/255"), ("mi-fgsm-4", "MI-FGSM 4/255"), ("cw", "cw")]
)
def test_titles(row: str, title: str) -> None:
    assert attack_title(row) == title
