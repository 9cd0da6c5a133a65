"""The workshop of the bundled models, in a world of a few people."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from diffaudit.data.captions import CLEAR_HAIR, HAIR_LABELS, hair_clearness, hair_labels
from diffaudit.data.faces import sample_identities
from diffaudit.errors import InvalidSetting
from diffaudit.events import Event
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.bundled import fingerprint, load_network
from diffaudit.models.prior import DiffusionPrior
from diffaudit.training import makers, populations, recipes, workshop
from diffaudit.training.attributes import attribute_targets
from diffaudit.training.bundle import train_bundle
from diffaudit.training.loop import fit
from diffaudit.training.pool import rendered_pool
from diffaudit.training.prior import small_prior
from diffaudit.training.recipes import BUNDLED, RECIPES
from diffaudit.training.workshop import Workshop

INTERMEDIATE = ("autoencoder", "decoder")
SHIPPED = tuple(name for name in BUNDLED if name not in INTERMEDIATE)
STEPS = 3


@pytest.fixture
def village(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes of three steps, a narrow prior, and populations of a few."""
    few = {
        name: replace(recipe, batch=4, pool_per_identity=2, schedule=replace(recipe.schedule, steps=STEPS, warmup=1))
        for name, recipe in RECIPES.items()
    }
    monkeypatch.setattr(recipes, "RECIPES", few)
    monkeypatch.setattr(recipes, "PER_IDENTITY", 4)
    monkeypatch.setattr(recipes, "PER_LABEL", 2)
    monkeypatch.setattr(makers, "small_prior", partial(small_prior, widths=(16, 16), cross_attention_dim=16))
    for name, count, seed in (("public", 8, 1), ("private", 5, 2), ("unseen", 3, 3)):
        people = sample_identities(count, seed=seed)
        monkeypatch.setattr(populations, f"{name}_identities", lambda people=people: people)
    monkeypatch.setattr(populations, "unseen_crowd", lambda: sample_identities(12, seed=4))


def card(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "card.json").read_text())
    return found


@pytest.mark.usefixtures("village")
def test_a_bundle_is_made_skipped_and_made_again_from_finished_checkpoints(tmp_path: Path) -> None:
    first, again = tmp_path / "first", tmp_path / "again"
    events: list[Event] = []
    train_bundle(["all"], first, on_event=events.append)
    assert list(dict.fromkeys(event.stage for event in events)) == list(BUNDLED)
    assert len(events) == STEPS * len(BUNDLED)

    # Shipped models and their cards lie in the folder, the rest in the work folder.
    assert sorted(path.name for path in first.iterdir()) == sorted([".work", *SHIPPED])
    for name in BUNDLED:
        folder = first / ".work" / name if name in INTERMEDIATE else first / name
        assert card(folder)["scores"]
        assert card(folder)["command"] == f"diffaudit train {name}"
        assert card(folder)["schedule"]["steps"] == STEPS
    assert load_network(first / "target")[1]["outputs"] == 5
    assert card(first / "target")["scores"]["training_pictures"] == 10
    assert 0 <= card(first / "prior")["scores"]["oracle_judge_accuracy"] <= 1

    # The prior carries the decoder, whose encoder is still the autoencoder's.
    prior = DiffusionPrior.load(first / "prior")
    parts = {name: UnshuffleAutoencoder.from_pretrained(first / ".work" / name) for name in INTERMEDIATE}
    assert same(prior.autoencoder, parts["decoder"], "decoder")
    assert same(parts["decoder"], parts["autoencoder"], "encoder")
    assert not same(parts["decoder"], parts["autoencoder"], "decoder")

    # What is finished is left alone, wherever it lies.
    (first / ".work" / "decoder").rename(first / "decoder")
    events.clear()
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    train_bundle(["all"], first, on_event=events.append)
    assert events == []
    assert before == {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}

    # Finished checkpoints alone: nothing is trained, and everything ends with the same bits.
    (again / ".work").mkdir(parents=True)
    for path in (first / ".work").glob("*.ck"):
        shutil.copy(path, again / ".work")
    train_bundle(["all"], again, on_event=events.append)
    assert events == []
    for name in SHIPPED:
        assert fingerprint(again / name) == fingerprint(first / name), name
        assert card(again / name)["scores"] == card(first / name)["scores"], name


def same(one: UnshuffleAutoencoder, other: UnshuffleAutoencoder, part: str) -> bool:
    pairs = zip(one.get_submodule(part).parameters(), other.get_submodule(part).parameters(), strict=True)
    return all(torch.equal(a.half(), b.half()) for a, b in pairs)


@pytest.mark.usefixtures("village")
def test_what_a_model_needs_is_made_first_and_without_judges_there_is_no_oracle_score(tmp_path: Path) -> None:
    events: list[Event] = []
    train_bundle(["prior"], tmp_path, on_event=events.append)
    assert list(dict.fromkeys(event.stage for event in events)) == ["autoencoder", "identity", "prior"]
    assert card(tmp_path / "prior")["scores"].keys() == {"fingerprint"}


@pytest.mark.usefixtures("village")
def test_what_was_saved_and_not_scored_is_finished_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between its weights and its card, a model is there, but not finished."""
    with monkeypatch.context() as patch:
        patch.setattr(makers, "accuracy", cut)
        with pytest.raises(KeyboardInterrupt):
            train_bundle(["target"], tmp_path)
    assert (tmp_path / "target" / "model.safetensors").exists()
    events: list[Event] = []
    train_bundle(["target"], tmp_path, on_event=events.append)
    assert events == []
    assert card(tmp_path / "target")["scores"].keys() >= {"accuracy_held_out", "accuracy_near_twins"}


def cut(*_: object) -> float:
    raise KeyboardInterrupt


@pytest.mark.usefixtures("village")
def test_a_stopped_training_ends_with_the_same_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train_bundle(["target"], tmp_path / "whole")

    def often(*arguments: Any, **options: Any) -> float:
        return fit(*arguments, **options, every=1)

    def stop(event: Event) -> None:
        if event.step == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(workshop, "fit", often)
    with pytest.raises(KeyboardInterrupt):
        train_bundle(["target"], tmp_path / "stopped", on_event=stop)
    events: list[Event] = []
    train_bundle(["target"], tmp_path / "stopped", on_event=events.append)
    assert [event.step for event in events] == [3]
    assert fingerprint(tmp_path / "stopped" / "target") == fingerprint(tmp_path / "whole" / "target")


@pytest.mark.usefixtures("village")
def test_a_trial_is_no_finished_model(tmp_path: Path) -> None:
    train_bundle(["attributes"], tmp_path, quick=True)
    assert card(tmp_path / "attributes")["quick"]
    events: list[Event] = []
    train_bundle(["attributes"], tmp_path, on_event=events.append)
    assert [event.step for event in events] == [1, 2, 3]
    assert not card(tmp_path / "attributes")["quick"]
    events.clear()
    train_bundle(["attributes"], tmp_path, quick=True, on_event=events.append)
    assert events == []


@pytest.mark.usefixtures("village")
def test_estimators_answer_in_the_factors_own_units(tmp_path: Path) -> None:
    train_bundle(["attributes"], tmp_path)
    network, found = load_network(tmp_path / "attributes")
    shop = Workshop(tmp_path, False, lambda event: None)
    pool = shop.public_pool
    targets = attribute_targets(pool.faces)
    assert found["spread"] == pytest.approx(targets.std(0).tolist())
    # Three steps teach little: standardised answers are about 0, which is the mean in the factors' own units.
    with torch.no_grad():
        answers = network(pool.at(torch.arange(len(pool))))
    assert ((answers - targets.mean(0)).abs().mean(0) < 2 * targets.std(0)).all()
    assert len(found["scores"]["correlation_unseen"]) == 10


@pytest.mark.usefixtures("village")
def test_readers_of_hair_are_scored_on_clear_hair(tmp_path: Path) -> None:
    train_bundle(["hair-mixer"], tmp_path, quick=True)
    network, found = load_network(tmp_path / "hair-mixer")
    assert tuple(found["labels"]) == HAIR_LABELS
    crowd = rendered_pool(populations.unseen_crowd(), 4, seed=7)
    images, people = crowd.at(torch.arange(len(crowd))), crowd.faces.identity
    right = network(images).argmax(1) == hair_labels(people)
    clear = hair_clearness(people) >= CLEAR_HAIR
    assert 0 < clear.sum() < len(clear)
    assert found["scores"]["accuracy_held_out"] == pytest.approx(float(right[clear].double().mean()), abs=1e-4)
    assert found["scores"]["accuracy_with_unclear_hair"] == pytest.approx(float(right.double().mean()), abs=1e-4)


def test_there_is_public_hair_of_every_label_to_learn_from() -> None:
    people = populations.public_identities()
    labels = hair_labels(people[hair_clearness(people) >= CLEAR_HAIR])
    assert labels.bincount(minlength=len(HAIR_LABELS)).min() > 80


def test_the_prior_comes_last_and_its_parts_first() -> None:
    assert BUNDLED[:2] == INTERMEDIATE
    assert BUNDLED[-1] == "prior"
    assert [name for name, recipe in RECIPES.items() if not recipe.shipped] == list(INTERMEDIATE)


def test_seeds_differ() -> None:
    """Two models of one seed would begin with the same weights and see the same pictures."""
    assert len({recipe.seed for recipe in RECIPES.values()}) == len(RECIPES)
    pools = [recipe.pool_seed for recipe in RECIPES.values() if recipe.kind in ("classifier", "words")]
    assert len(set(pools)) == len(pools) == 8


@pytest.mark.parametrize("names", [["judge"], ["target", "oracle"]])
def test_unknown_names_are_refused_before_any_work(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(InvalidSetting, match=r"`model` should be `all` or one of autoencoder, decoder, .*, prior"):
        train_bundle(names, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_quick_bundle_holds_every_model(tmp_path: Path) -> None:
    train_bundle(["all"], tmp_path, quick=True)
    for name in SHIPPED:
        assert card(tmp_path / name)["quick"], name
    assert DiffusionPrior.load(tmp_path / "prior").num_train_timesteps == 1000
    assert load_network(tmp_path / "judge-factors")[1]["outputs"] == 23
