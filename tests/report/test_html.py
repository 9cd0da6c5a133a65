import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from diffaudit.errors import InvalidSetting
from diffaudit.records import HealthPoint, RunFolder, append_lines, read_records
from diffaudit.report.html import write_report

from .conftest import CLASSES, MANIFEST, SAMPLES, MakeRun, Page, barely


def page(run: Path) -> Page:
    return Page(write_report(run).read_text(encoding="utf-8"))


def test_the_page_is_well_formed_and_asks_for_nothing(make_run: MakeRun) -> None:
    path = write_report(make_run(steps=30))
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert found.stack == []
    assert path.name == "report.html"
    assert "http" not in text
    assert not {"script", "link", "iframe", "object", "base"} & {name for name, _ in found.elements}
    for _, attributes in found.elements:
        for key in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attributes.get(key) or "#").startswith(("data:image/png;base64,", "#"))
    assert not re.findall(r"url\((?!#)|@import", text)


def test_links_and_identifiers_fit_together(make_run: MakeRun) -> None:
    found = page(make_run(steps=30))
    identifiers = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    targets = {(attributes["href"] or "")[1:] for attributes in found.all("a")}
    assert targets <= set(identifiers)
    for panel in ("rows", "prior"):
        assert len({one for one in identifiers if one and one.startswith(f"{panel}-p")}) <= 2


def test_every_picture_is_embedded_with_words(make_run: MakeRun) -> None:
    images = page(make_run()).all("img")
    references = 2
    assert len(images) == CLASSES * (references + 2 * SAMPLES)
    assert all(image["alt"] for image in images)
    alts = [image["alt"] for image in images]
    assert alts.count("reconstruction 1 of person 7: not recognised") == 1
    assert alts.count("reconstruction 1 of person 0: recognised") == 1


def test_every_class_is_shown_with_its_votes(make_run: MakeRun) -> None:
    found = page(make_run())
    people = [one["id"] for one in found.all("article")]
    assert people == [f"person-{label}" for label in range(CLASSES)]
    assert "Recognised in most votes 6 classes" in found.words
    assert "Never recognised 2 classes" in found.words
    assert found.words.count("plain: takes it for person 42") == 2 * SAMPLES
    assert "2 of 2 recognised" in found.words
    assert "0 of 2 recognised" in found.words


def test_what_the_page_says(make_run: MakeRun) -> None:
    words = page(make_run()).words.replace("\N{NO-BREAK SPACE}", " ")
    assert "two independent judges recognise as the right person, among 100, in 75 % of 16 samples" in words
    assert "Photographs of the real people reach 100 %; other people's photographs 0 %" in words
    assert "without optimisation 13 %; chance is 1.0 %" in words
    assert "lower is nearer to the source, not better" in words
    assert "the target's weights" in words
    assert "a private image" in words
    assert "name='<a&b>'" in words
    assert "name: '<quick>'" in words


def test_overlap_is_said(make_run: MakeRun) -> None:
    words = page(make_run(barely)).words
    assert "this run does not show that the model leaks" in words
    assert "this run does not show that the optimisation adds anything" in words


def test_missing_rows_curves_and_manifest(make_run: MakeRun) -> None:
    found = page(make_run(rows=("attack",), manifest=None))
    assert "states no threat model" in found.words
    assert "chance" not in found.words
    assert "Photographs of" not in found.words
    assert "Curves" not in found.words
    assert len(found.all("svg")) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"is_attack": False}, "This run is not an attack"),
        ({"state": "interrupted"}, "not finished (state: interrupted)"),
        ({"threat_model": {}}, "states no threat model"),
    ],
)
def test_the_manifest_is_heeded(make_run: MakeRun, change: dict[str, Any], words: str) -> None:
    assert words in page(make_run(manifest=MANIFEST | change)).words


def test_a_missing_picture_leaves_a_gap_with_words(make_run: MakeRun) -> None:
    run = make_run()
    (run / read_records(run / "records.jsonl")[0].image).unlink()
    labels = [one.get("aria-label") for one in page(run).all("span")]
    assert "reconstruction 1 of person 0: recognised (no file)" in labels


def test_a_large_picture_is_reduced(make_run: MakeRun) -> None:
    run = make_run()
    small = write_report(run).stat().st_size
    Image.effect_noise((600, 400), 90).convert("RGB").save(run / "images" / "attack" / "0000-00.png")
    assert write_report(run).stat().st_size - small < 160 * 160 * 3 * 1.5


def test_files_beside_the_page(make_run: MakeRun) -> None:
    run = make_run(steps=30)
    write_report(run)
    assert {path.name for path in (run / "tables").iterdir()} == {
        f"{name}.{suffix}" for name in ("results", "judges", "naive") for suffix in ("md", "tex")
    }
    stems = {"rows", "term-prior", "term-cls-logit", "term-late", "weights", "accuracy", "gradient"}
    assert {path.name for path in (run / "figures").iterdir()} == {f"{s}.{x}" for s in stems for x in ("svg", "png")}
    for path in (run / "figures").glob("*.svg"):
        ElementTree.parse(path)
    for path in (run / "figures").glob("*.png"):
        with Image.open(path) as image:
            image.verify()


def test_the_page_repeats_itself(make_run: MakeRun) -> None:
    run = make_run(steps=30)
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


@pytest.mark.parametrize("name", ["records.jsonl", "metrics.json"])
def test_an_unfinished_run_is_refused(make_run: MakeRun, name: str) -> None:
    run = make_run()
    (run / name).unlink()
    with pytest.raises(InvalidSetting, match=rf"`{name}`.*Finish the run"):
        write_report(run)


def test_travel_is_told_beside_the_curves(make_run: MakeRun) -> None:
    run = make_run(steps=30)
    metrics = json.loads((run / "metrics.json").read_text())
    metrics["travel"] = {"embedding": {"mean": 12.3, "largest": 45.6, "unit": "degrees"}, "centres": None}
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert "moved the label embeddings by 12 on average and 46 at most (degrees)." in page(run).words


def test_health_is_shown_where_it_was_looked_at(make_run: MakeRun) -> None:
    run = make_run()
    assert "Health of the training" not in page(run).words
    point = HealthPoint(
        stage="embed",
        step=0,
        norm_error={"embedding": 0.25},
        positives=(0.1, 0.9),
        negatives=None,
        gradient_norms={"id": 0.5},
        gradient_cosines={},
        satisfied={"id": 0.0},
        weights={"id": 1.0},
        log_variances={},
        at_clamp={},
        centre_travel=None,
    )
    append_lines(RunFolder(run).health, [point.to_json()])
    words = page(run).words
    assert "Health of the training" in words
    assert re.search(r"unit embeddings\s*\u2717 no", words)
    assert "Normalise `embedding` where it is made." in words
    assert re.search(r"cosines\s*\u2713 yes", words)
