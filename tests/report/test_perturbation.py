"""The page of a perturbation: whole, self-contained, and with every picture in it."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffaudit.errors import InvalidSetting
from diffaudit.records import RunFolder
from diffaudit.report.html import write_report

from .conftest import IMAGES, MANIFEST, MakePerturbed, MakeRun, Page


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_the_settings_say_which_page_it_is(make_perturbed: MakePerturbed, make_run: MakeRun) -> None:
    assert "Perturbation audit" in page(make_perturbed()).words
    assert "Inversion audit" in page(make_run()).words


def test_the_page_is_well_formed_and_asks_for_nothing(make_perturbed: MakePerturbed) -> None:
    text = write_report(make_perturbed()).read_text(encoding="utf-8")
    found = Page(text)
    assert found.stack == []
    assert "http" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {name for name, _ in found.elements}
    for _, attributes in found.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(key) or "#").startswith(("data:image/png;base64,", "#"))
    assert not re.findall(r"url\((?!#)|@import", text)


def test_links_and_identifiers_fit_together(make_perturbed: MakePerturbed) -> None:
    found = page(make_perturbed())
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert {(attributes["href"] or "")[1:] for attributes in found.all("a")} <= set(identifiers)


def test_every_picture_is_shown_with_its_votes(make_perturbed: MakePerturbed) -> None:
    found = page(make_perturbed())
    assert [one["id"] for one in found.all("article")] == [f"image-{number}" for number in range(IMAGES)]
    images = found.all("img")
    assert len(images) == IMAGES * (3 + 1)  # clean, adversarial, difference; one reference
    assert all(image["alt"] for image in images)
    assert "Fools every held-out model that was right 4 pictures" in found.words
    assert "Fools no held-out model 2 pictures" in found.words
    assert found.words.count("was wrong before") == 1
    assert found.words.count("after: takes it for class 42") == 4 * 4 + 2 * 2
    assert "PGD 8/2551 of 2" in found.words


def test_a_row_is_styled_as_a_row_whatever_its_name(make_perturbed: MakePerturbed) -> None:
    """The page has a style of its own for what an inversion rebuilt."""
    found = page(make_perturbed(rows=("attack", "rebuilt")))
    assert {attributes.get("class") for attributes in found.all("tr")} >= {"row-attack", "row-rebuilt"}
    assert "rebuilt" not in {attributes.get("class") for _, attributes in found.elements}
    assert "did by themselves" in found.words


def test_attention_is_shown_where_it_was_kept(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    for when in ("before", "after"):
        path = RunFolder(run).attention(3, when)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    alts = [image["alt"] for image in page(run).all("img")]
    assert alts.count("face-0003, attention of the label before the attack") == 1
    assert sum("attention" in (alt or "") for alt in alts) == 2


def test_what_the_page_says(make_perturbed: MakePerturbed) -> None:
    words = page(make_perturbed()).words.replace("\N{NO-BREAK SPACE}", " ")
    assert "fool two models that the attack never saw in 67 % (mean of the models; 95 % interval" in words
    assert "and the model that they were made on in 100 %" in words
    assert "lower: less visible" in words
    assert "not counted as transfer" in words
    assert "Behind jpeg-75" in words
    assert "name: '<perturb>'" in words
    assert "the target's weights" in words
    assert "diffaudit invert configs/quick.yaml --set name='<a&b>'" in words
    assert "a bootstrap over pictures" in words
    assert "by class" not in words


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"manifest": None}, "states no threat model"),
        ({"manifest": MANIFEST | {"state": "interrupted"}}, "not finished (state: interrupted)"),
        ({"defended": {}}, "Distances"),
        ({"goal": 42}, "sought class 42"),
        ({"models": {"seen": "surrogate"}}, "no held-out model was judged"),
    ],
)
def test_what_a_run_lacks_is_left_out(make_perturbed: MakePerturbed, change: dict[str, Any], words: str) -> None:
    found = page(make_perturbed(**change))
    assert words in found.words
    assert ("Behind" in found.words) == ("defended" not in change)
    assert len(found.all("svg")) == (0 if "models" in change else 1)


def test_a_missing_picture_leaves_a_gap_with_words(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    (run / "images" / "attack" / "00000.png").unlink()
    labels = [one.get("aria-label") for one in page(run).all("span")]
    assert "face-0000, adversarial: fools 2 of 2 held-out models (no file)" in labels
    assert "face-0000, difference times 10 (no file)" in labels


def test_files_beside_the_page(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    write_report(run)
    names = ("attacks", "models", "distances", "defences", "white-box-defences")
    assert {path.name for path in (run / "tables").iterdir()} == {f"{n}.{x}" for n in names for x in ("md", "tex")}
    assert {path.name for path in (run / "figures").iterdir()} == {"frontier.svg", "frontier.png"}
    ElementTree.parse(run / "figures" / "frontier.svg")


def test_the_page_repeats_itself(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_an_unfinished_run_is_refused(make_perturbed: MakePerturbed) -> None:
    run = make_perturbed()
    (run / "metrics.json").unlink()
    with pytest.raises(InvalidSetting, match=r"`metrics.json`.*diffaudit perturb"):
        write_report(run)
