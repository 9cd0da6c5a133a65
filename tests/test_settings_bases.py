"""One settings file over another: sections key by key, all else whole."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.configurations import configuration_names, settings_path
from diffaudit.settings import SettingsError, load_audit, load_perturbation, load_settings, read_mapping

Write = Callable[[str, Mapping[str, Any]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(name: str, values: Mapping[str, Any]) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(dict(values)))
        return path

    return written


def test_a_file_that_says_nothing_is_its_base(write: Write) -> None:
    for name in configuration_names():
        base = settings_path(name)
        if "rows" not in read_mapping(base):
            assert load_audit(write("mine.yaml", {"base": name})) == load_audit(base)


def test_a_section_is_laid_over_key_by_key(write: Write) -> None:
    write("below.yaml", {"seed": 4, "image": {"steps": 5, "strength": 0.7}, "attack": {"prior": {"prompt": "a face"}}})
    mine = write("mine.yaml", {"base": "below.yaml", "image": {"steps": 3}, "attack": {"prior": {"location": "here"}}})
    found = load_settings(mine)
    assert (found.seed, found.image.steps, found.image.strength) == (4, 3, 0.7)
    assert (found.attack.prior.location, found.attack.prior.prompt) == ("here", "a face")


def test_a_list_is_taken_whole(write: Write) -> None:
    stage = {"name": "one", "trains": ["embedding"], "steps": 3, "rate": 0.1, "weights": {"cls": 1.0}}
    write("below.yaml", {"stages": [stage, {**stage, "name": "two"}]})
    found = load_settings(write("mine.yaml", {"base": "below.yaml", "stages": [{**stage, "name": "three"}]}))
    assert [one.name for one in found.stages] == ["three"]


def test_models_by_name_are_taken_whole(write: Write) -> None:
    """The base's models know other classes: beside one's own they would be wrong."""
    found = load_perturbation(
        write(
            "mine.yaml", {"base": "perturb-full", "surrogates": {"mine": {"kind": "pt2", "path": "m.pt2", "size": 64}}}
        )
    )
    assert list(found.surrogates) == ["mine"]
    assert found.judging == load_perturbation(settings_path("perturb-full")).judging


def test_nothing_of_another_kind_is_left(write: Write) -> None:
    write("below.yaml", {"attack": {"public": {"kind": "faces", "identities": 70}}, "weighting": {"kind": "fixed"}})
    mine = {"base": "below.yaml", "attack": {"public": {"kind": "folders", "folders": ["a"]}}}
    assert load_settings(write("mine.yaml", mine)).attack.public.kind == "folders"
    again = {"base": "below.yaml", "embedding": {"kind": "table"}}
    write("below.yaml", {"embedding": {"kind": "manifold", "explained_variance": 0.5, "anchor_images": 3}})
    assert load_settings(write("mine.yaml", again)).embedding.anchor_images == 16


def test_a_kind_that_the_base_leaves_to_its_default_is_no_other(write: Write) -> None:
    write("below.yaml", {"embedding": {"anchor_images": 3}})
    mine = {"base": "below.yaml", "embedding": {"kind": "manifold", "explained_variance": 0.5}}
    found = load_settings(write("mine.yaml", mine)).embedding
    assert (found.anchor_images, found.explained_variance) == (3, 0.5)


def test_a_base_may_have_a_base_and_lies_beside_its_own_file(tmp_path: Path, write: Write) -> None:
    (tmp_path / "deep").mkdir()
    write("deep/first.yaml", {"seed": 1, "threads": 1})
    write("deep/second.yaml", {"base": "first.yaml", "seed": 2})
    found = load_settings(write("mine.yaml", {"base": "deep/second.yaml"}), {"name": "over"})
    assert (found.name, found.seed, found.threads) == ("over", 2, 1)


@pytest.mark.parametrize(
    ("base", "words"),
    [
        ("nosuch", "`base` should be a YAML file or a shipped configuration"),
        ("./nosuch.yaml", "`base` should be a YAML file or a shipped configuration"),
        ("other.yaml", "`base` should lead to another file. Found mine.yaml, which leads back here."),
        (3, "`base` should be a file or a shipped configuration. Found 3."),
        ("perturb", "`audit` should be 'inversion'. Found 'perturbation'."),
    ],
)
def test_what_is_no_base_is_refused(write: Write, base: Any, words: str) -> None:
    write("other.yaml", {"base": "mine.yaml"})
    with pytest.raises(SettingsError) as caught:
        load_settings(write("mine.yaml", {"base": base}))
    assert words in str(caught.value)
