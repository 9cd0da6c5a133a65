"""Runs whose label embedding is words in a prompt."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from diffaudit import build
from diffaudit.events import Event
from diffaudit.inversion.candidates import draw_candidate
from diffaudit.records import RunFolder, read_records
from diffaudit.settings import SettingsError, check_settings
from diffaudit.study.runner import run_inversion

from .conftest import PowerCutError


@pytest.fixture
def values(tiny_values: dict[str, Any]) -> dict[str, Any]:
    """Two stages, the second with adapters, the contrastive term among the others."""
    tiny_values["embedding"] |= {"kind": "textual_inversion", "words": "bearded person"}
    tiny_values["attack"]["prior"] |= {"prompt": "a portrait of a {label} with long hair"}
    tiny_values["terms"] = {"identity_anchor": "pseudo", "id": [{"kind": "contrastive"}]}
    return tiny_values


def test_a_run_by_words(values: dict[str, Any], tmp_path: Path) -> None:
    run = RunFolder(run_inversion(check_settings(values), tmp_path / "run", command="test"))
    metrics = json.loads(run.metrics.read_text())
    assert metrics["reference"].keys() == {"upper", "lower", "start"}
    assert metrics["travel"]["embedding"]["largest"] > 0
    assert any("no words are known for" in note for note in metrics["notes"])
    assert {record.row for record in read_records(run.records)} == {"attack", "start", "upper", "lower"}
    assert "no words are known for" in run.report.read_text()


def test_a_stopped_run_goes_on_with_the_same_words(values: dict[str, Any], tmp_path: Path) -> None:
    settings = check_settings(values)

    def cut(event: Event) -> None:
        if event.stage == "adapt" and event.step == 2:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run_inversion(settings, tmp_path / "stopped", command="test", on_event=cut)
    stopped = RunFolder(run_inversion(settings, tmp_path / "stopped", command="test"))
    whole = RunFolder(run_inversion(settings, tmp_path / "whole", command="test"))
    assert stopped.records.read_bytes() == whole.records.read_bytes()


def test_words_begin_as_the_initial_ones_and_the_bank_holds_identities(values: dict[str, Any]) -> None:
    """They are sought in units of their first length; what others are held against is the anchors."""
    attacker = build.build_attacker(settings := check_settings(values))
    assert attacker.prior.words is not None
    assert attacker.prompt == "a portrait of a bearded person with long hair"
    state = build.build_state(settings, attacker, attacker.pseudo_anchors(3))
    torch.testing.assert_close(state.embedding(torch.arange(2)), attacker.prior.words.start.repeat(2, 1))
    torch.testing.assert_close(state.embedding.raw().norm(dim=1), torch.ones(2))
    assert state.embedding.travel().max() == 0
    assert state.bank is not None
    anchors, plan = attacker.pseudo_anchors(3), build.build_stages(settings)[0]
    image, generator = build.build_image_plan(settings.image), torch.Generator().manual_seed(0)
    rows = torch.tensor([0, 1])
    draw_candidate(state, plan, image, lambda some: anchors[some], rows, generator, step=0, prior_weight=None)
    torch.testing.assert_close(state.bank.vectors[:2], anchors)


def test_all_that_does_not_fit_words_is_told_at_once(values: dict[str, Any]) -> None:
    values["attack"]["prior"]["prompt"] = "a person"
    values["terms"]["identity_anchor"] = "learned"
    values["stages"][1] |= {"trains": ["projector", "lora"], "condition": "image"}
    with pytest.raises(SettingsError) as caught:
        check_settings(values)
    starts = (
        "`attack.prior.prompt` should have one place {label}",
        "`terms.identity_anchor` should be 'pseudo' under textual inversion",
        "`stages` should have the condition 'label' under textual inversion",
        "`stages` should not train `projector` under textual inversion",
    )
    assert len(caught.value.faults) == len(starts)
    assert all(fault.startswith(start) for fault, start in zip(caught.value.faults, starts, strict=True))


def test_a_place_in_the_prompt_is_for_words_alone(tiny_values: dict[str, Any]) -> None:
    tiny_values["attack"]["prior"]["prompt"] = "a {label}"
    with pytest.raises(SettingsError, match=r"`attack.prior.prompt` should hold {label} where .* Found table"):
        check_settings(tiny_values)


def test_one_of_two_says_who_is_drawn(values: dict[str, Any]) -> None:
    values["attack"]["prior"]["face_id"] = {"path": "face.bin"}
    values["stages"][0]["trains"] = ["embedding", "projector"]
    with pytest.raises(SettingsError) as caught:
        check_settings(values)
    assert [fault.split(" should ")[0] for fault in caught.value.faults] == [
        "`attack.prior.face_id`",
        "`stages`",
        "`stages`",
    ]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("embedding", {"words": ""}, "`embedding.words` should have at least 1 character"),
        ("prior", {"kind": "bundled", "face_id": {"path": "face.bin"}}, "`attack.prior.face_id` should be left out"),
    ],
)
def test_what_cannot_work_is_refused_at_load(
    values: dict[str, Any], section: str, change: dict[str, Any], message: str
) -> None:
    part = values["attack"]["prior"] if section == "prior" else values[section]
    part |= change
    with pytest.raises(SettingsError, match=message):
        check_settings(values)
