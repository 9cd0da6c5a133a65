"""Cards of adversarial pictures: what is shown of each, and what every vote is counted as."""

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffaudit.records import read_perturbation_records
from diffaudit.report.perturbation_pictures import AttackCard, attack_groups, difference

from .conftest import MODELS, MakePerturbed


def cards(make: MakePerturbed, **options: Any) -> dict[int, AttackCard]:
    run = make(**options)
    groups = attack_groups(run, read_perturbation_records(run / "records.jsonl"), options.get("models", MODELS))
    return {card.number: card for group in groups for card in group.cards}


def pixels(uri: str | None) -> list[int]:
    assert uri is not None
    with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
        return [int(value) for value in np.asarray(image)[0, 0]]


def test_the_difference_is_ten_times_as_large_around_grey(tmp_path: Path) -> None:
    for name, colour in (("clean", (100, 100, 100)), ("changed", (104, 100, 80))):
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{name}.png")
    found = difference(tmp_path / "clean.png", tmp_path / "changed.png", "a change")
    assert pixels(found.uri) == [168, 128, 0]  # 128 + 40, untouched, 128 - 200 cut off
    assert difference(tmp_path / "clean.png", tmp_path / "none.png", "a").alt == "a (no file)"
    Image.new("RGB", (2, 4)).save(tmp_path / "small.png")
    assert difference(tmp_path / "clean.png", tmp_path / "small.png", "a").alt == "a (sizes differ)"


def test_outcomes(make_perturbed: MakePerturbed) -> None:
    found = cards(make_perturbed)
    assert [vote.outcome for vote in found[1].votes] == ["fooled", "fooled", "was wrong before", "fooled"]
    assert [vote.outcome for vote in found[5].votes] == ["fooled", "holds", "holds", "fooled"]
    assert (found[1].summary, found[1].share) == ("fools 1 of 1 held-out model", 1)
    assert (found[5].summary, found[5].share) == ("fools 0 of 2 held-out models", 0)
    assert found[1].tiles[1].fools
    assert not found[5].tiles[1].fools


def test_references_are_counted_apart(make_perturbed: MakePerturbed) -> None:
    found = cards(make_perturbed)
    assert [(tile.caption, tile.note, tile.fools) for tile in found[0].references] == [("PGD 8/255", "1 of 2", False)]


def test_another_wrong_class_does_not_reach_the_goal(make_perturbed: MakePerturbed) -> None:
    def elsewhere(row: str, image: int, model: str) -> bool:
        return False

    run = make_perturbed(elsewhere, rows=("attack",), goal=9)
    text = (run / "records.jsonl").read_text().replace('"predicted": {"seen": 0', '"predicted": {"seen": 7')
    (run / "records.jsonl").write_text(text)
    card = attack_groups(run, read_perturbation_records(run / "records.jsonl"), MODELS)[0].cards[0]
    assert (card.votes[0].predicted, card.votes[0].outcome) == ("class 7", "wrong, but not the class sought")
    assert card.goal == "class 9"


def test_pictures_no_held_out_model_knew_stand_apart(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed(models={"two": "heldout"})
    groups = attack_groups(run, read_perturbation_records(run / "records.jsonl"), {"two": "heldout"})
    assert [group.title for group in groups][-1] == "No held-out model was right before"
    assert [card.number for card in groups[-1].cards] == [1]
    assert groups[-1].cards[0].summary == "no held-out model was right before"
    assert [tile.note for tile in groups[-1].cards[0].references] == [""]


def test_pictures_that_no_held_out_model_was_shown_are_not_called_wrong(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed(models={"seen": "surrogate"})
    (group,) = attack_groups(run, read_perturbation_records(run / "records.jsonl"), {"seen": "surrogate"})
    assert group.title == "No held-out model was asked"
    assert {card.summary for card in group.cards} == {"no held-out model was asked"}


def test_classes_are_called_by_their_words(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    records = read_perturbation_records(run / "records.jsonl")
    found = {
        card.number: card for group in attack_groups(run, records, MODELS, {"1": "red fox"}) for card in group.cards
    }
    assert (found[1].label, found[0].label) == ("red fox", "class 0")
    assert found[1].votes[0].predicted == "class 42"


def test_what_deserves_another_label_is_said_so(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    text = (run / "records.jsonl").read_text().replace('"label_kept": null', '"label_kept": false')
    (run / "records.jsonl").write_text(text)
    records = read_perturbation_records(run / "records.jsonl")
    card = attack_groups(run, records, MODELS)[0].cards[0]
    assert card.summary.endswith("; deserves another label now")
