"""What a perturbation prints on the terminal when it ends."""

import io

from rich.console import Console

from diffaudit.summary import perturbation_summary_table


def lines(**changes: object) -> list[list[str]]:
    rate = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 4}
    attack = {"transfer_mean": rate, "white_box_mean": rate | {"value": 1.0}, "perceptual_distance": {"value": 0.0625}}
    reference = {"transfer_mean": None, "white_box_mean": rate | {"low": None}, "perceptual_distance": None}
    references = {"pgd-8": reference, "rebuilt": reference}
    metrics = {"classes": 3, "images": 4, **attack, "references": references, **changes}
    file = io.StringIO()
    Console(file=file, width=120).print(perturbation_summary_table(metrics))
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in file.getvalue().splitlines() if "│" in line]


def test_a_line_an_attack() -> None:
    assert lines() == [
        ["attack", "100.0 %", "50.0 %", "25.0 to 75.0 %", "-", "0.0625"],
        ["pgd-8", "50.0 %", "-", "-", "-", "-"],
        ["rebuilt: no perturbation", "50.0 %", "-", "-", "-", "-"],
    ]


def test_what_keeps_its_label_stands_beside_all_of_it() -> None:
    assert lines(transfer_kept={"value": 0.25})[0][4] == "25.0 %"
