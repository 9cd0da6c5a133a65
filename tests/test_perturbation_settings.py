"""Every rule of a perturbation's settings, by its message: name, rule, value found."""

from itertools import product
from typing import Any, get_args

import pytest
import yaml
from pydantic import ValidationError

from diffaudit.configurations import configuration_folder
from diffaudit.settings import (
    AnyAttackLoss,
    AnyDefence,
    AnyPerturbationTerm,
    Ensemble,
    MarginLoss,
    PerturbationSettings,
    Ramp,
    Section,
    SettingsError,
    check_perturbation,
    dump_settings,
    load_perturbation,
)
from diffaudit.study.ablation_rows import load_ablation

MODEL = {"kind": "bundled", "name": "hair-plain"}


def settings_of(values: dict[str, Any]) -> PerturbationSettings:
    return PerturbationSettings.model_validate(values)


def kinds_of(union: Any) -> list[str]:
    members: tuple[type[Section], ...] = get_args(get_args(union)[0])
    return [member.model_fields["kind"].default for member in members]


def test_the_defaults_load_and_hold_the_methods_numbers() -> None:
    settings = settings_of({})
    assert settings == PerturbationSettings()
    assert settings.audit == "perturbation"
    assert (settings.latents.steps, settings.latents.start, settings.latents.guidance_scale) == (20, 15, 1.0)
    assert settings.latents.null_text is None
    assert (settings.attention.window, settings.attention.keep_heads) == ([0.5, 0.9], 0.9)
    assert isinstance(settings.loss, MarginLoss)
    assert (settings.loss.weight, settings.loss.kappa, settings.budget.stop_margin) == (1.0, 5.0, 5.0)
    assert (settings.ensemble.kind, settings.ensemble.space, settings.ensemble.tau) == ("agreement", "image", 7.0)
    views = settings.transformations
    assert (views.samples, views.every, views.rotation, views.scale, views.hue) == (2, 2, 10.0, [0.9, 1.1], 0.05)
    assert (settings.step.kind, settings.step.rate, settings.step.decay) == ("adamw", 0.04, 0.9)
    weights = {"entropy": 0.2, "contrast": 0.35, "replace": 0.35, "self_attention": 0.5, "drift": 0.05}
    found = settings_of({"terms": [{"kind": kind} for kind in weights]}).terms
    assert {term.kind: term.weight for term in found} == weights
    assert {term.scale for term in found} == {"first"}


def test_no_judge_is_a_surrogate_by_default() -> None:
    settings = PerturbationSettings()
    attacked = {str(model) for model in settings.surrogates.values()}
    assert not attacked & {str(model) for model in settings.judging.heldout.values()}


@pytest.mark.parametrize(
    ("loss", "stop"),
    [
        ({"kind": "margin", "kappa": 2.0}, None),
        ({"kind": "margin", "kappa": 2.0}, 2.0),
        ({"kind": "margin"}, 5.0),
        ({"kind": "ce"}, 9.0),
    ],
)
def test_a_loss_that_leads_to_the_stop_loads(loss: dict[str, Any], stop: float | None) -> None:
    assert settings_of({"loss": loss, "budget": {"stop_margin": stop}}).budget.stop_margin == stop


@pytest.mark.parametrize("kind", kinds_of(AnyAttackLoss))
def test_every_loss_loads(kind: str) -> None:
    assert settings_of({"loss": {"kind": kind, "weight": 2.0}}).loss.kind == kind


def test_all_terms_load_together() -> None:
    kinds = kinds_of(AnyPerturbationTerm)
    assert len(kinds) == 10
    weight = {"start": 0.1, "end": 0.9, "shape": "cosine"}
    found = settings_of({"terms": [{"kind": kind, "weight": weight, "scale": "first"} for kind in kinds]}).terms
    assert [term.kind for term in found] == kinds
    assert all(term.weight == Ramp(start=0.1, end=0.9, shape="cosine") for term in found)


@pytest.mark.parametrize(
    ("kind", "space"), list(product(["mean", "worst", "agreement", "improvement", "adaea"], ["image", "latent"]))
)
def test_every_rule_loads_in_both_spaces(kind: str, space: str) -> None:
    ensemble = settings_of({"ensemble": {"kind": kind, "space": space}}).ensemble
    assert (ensemble.kind, ensemble.space) == (kind, space)


def test_every_defence_and_reference_loads() -> None:
    defences = [{"kind": kind} for kind in kinds_of(AnyDefence)]
    references = [{"method": method, "budget": 8} for method in ("pgd", "mi-fgsm")]
    judging = settings_of({"judging": {"defences": defences, "references": references}}).judging
    assert [defence.kind for defence in judging.defences] == ["jpeg", "bit_depth", "resize_pad", "purification"]
    assert [(attack.method, attack.budget) for attack in judging.references] == [("pgd", 8), ("mi-fgsm", 8)]


def test_labelled_pictures_load() -> None:
    images = {"kind": "labelled", "folder": "a", "labels": "b.txt", "names": "c.txt", "first_class": 1}
    found = settings_of({"images": images}).images
    assert (found.kind, found.count) == ("labelled", None)


@pytest.mark.parametrize("step", ["adamw", "momentum"])
@pytest.mark.parametrize("mask", ["none", "attention", "grad_cam"])
def test_steps_and_masks_load(step: str, mask: str) -> None:
    threshold = None if mask == "none" else 0.5
    settings = settings_of({"step": {"kind": step}, "mask": {"kind": mask, "threshold": threshold}})
    assert (settings.step.kind, settings.mask.kind) == (step, mask)


@pytest.mark.parametrize("levels", [None, [0, 1], {0: 2.0, 1: 0.5}])
def test_levels_are_a_list_or_weights_and_come_back(levels: Any) -> None:
    settings = settings_of({"mask": {"kind": "attention", "layers": {"levels": levels}}})
    assert settings.mask.layers.levels == levels
    assert settings_of(yaml.safe_load(dump_settings(settings))) == settings


def test_weights_of_an_ensemble_are_one_a_surrogate() -> None:
    weighted = {"kind": "weighted", "weights": [1.0, 2.0, 0.0]}
    assert settings_of({"ensemble": weighted}).ensemble == Ensemble(kind="weighted", weights=[1.0, 2.0, 0.0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nme": "x"}, "Extra inputs"),
        ({"audit": "inversion"}, "'perturbation'"),
        ({"surrogates": {}}, "at least 1 item"),
        ({"surrogates": {"a b": MODEL}}, "pattern"),
        ({"latents": {"steps": 5, "start": 5}}, "`start` should be below `steps` (5). Found 5."),
        ({"latents": {"guidance_scale": 0.5}}, "greater than or equal to 1"),
        ({"latents": {"null_text": {}}}, "`null_text` should be left out at guidance 1, which has no null condition."),
        ({"prompts": {"template": "a photo"}}, "`template` should have the place of the label, {label}. Found"),
        (
            {"prompts": {"template": "{label} by {distractor}", "distractor": "none"}},
            "`template` should have no {distractor} where none is chosen. Found '{label} by {distractor}'.",
        ),
        (
            {"prompts": {"distractor": "none", "name_rival": "always"}},
            "`name_rival` should be where_read where `distractor` is none. Found 'always'.",
        ),
        ({"attention": {"window": [0.9, 0.5]}}, "`window` should be two numbers, the smaller one first."),
        ({"attention": {"window": [0.5, 1.5]}}, "less than or equal to 1"),
        ({"terms": [{"kind": "entropy", "layers": {"mid": 0, "up": 0}}]}, "one of `down`, `mid` and `up` should be"),
        ({"terms": [{"kind": "entropy", "layers": {"levels": {0: 0.0}}}]}, "one of `levels` should be above 0."),
        ({"terms": [{"kind": "entropy", "layers": {"levels": {}}}]}, "at least 1 item"),
        ({"terms": [{"kind": "l2", "layers": {}}]}, "Extra inputs"),
        ({"attention": {"keep_heads": 0}}, "greater than 0"),
        ({"mask": {"kind": "attention", "threshold": 0}}, "greater than 0"),
        ({"mask": {"threshold": 0.5}}, "`threshold` should be null where `kind` is none. Found 0.5."),
        ({"terms": [{"kind": "variance", "side": 1}]}, "greater than or equal to 2"),
        ({"terms": [{"kind": "entropy", "side": 1}]}, "greater than or equal to 2"),
        ({"terms": [{"kind": "contrast", "margin": 1.1}]}, "less than or equal to 1"),
        ({"ensemble": {"as_published": True}}, "`as_published` should be false where `kind` is agreement. Found true."),
        ({"judging": {"defences": [{"kind": "jpeg", "quality": 96}]}}, "less than or equal to 95"),
        (
            {"judging": {"references": [{"method": "pgd", "budget": 8}, {"method": "pgd", "budget": 8}]}},
            "`references` should hold each attack once. Found pgd 8 twice.",
        ),
        ({"loss": {"kind": "hinge"}}, "'ce', 'margin', 'dlr', 'distribution'"),
        ({"loss": {"kind": "ce", "kappa": 1.0}}, "Extra inputs"),
        (
            {"loss": {"kind": "margin", "kappa": 2.0}},
            "`loss.kappa` should be at least `budget.stop_margin` (5.0), or nothing pulls a picture as far. Found 2.0.",
        ),
        ({"terms": [{"kind": "entropy", "weight": -1}]}, "greater than or equal to 0"),
        (
            {"terms": [{"kind": "entropy"}, {"kind": "entropy"}]},
            "`terms` should hold one of a kind. Found entropy, entropy.",
        ),
        ({"ensemble": {"of": "logits"}}, "`of` should be losses where `kind` is agreement. Found 'logits'."),
        ({"ensemble": {"tau": -1.0}}, "greater than or equal to 0"),
        ({"ensemble": {"kind": "weighted"}}, "`weights` should hold one above 0 where `kind` is weighted. Found None."),
        ({"ensemble": {"kind": "weighted", "weights": [0, 0, 0]}}, "`weights` should hold one above 0"),
        ({"ensemble": {"kind": "worst", "weights": [1, 1, 1]}}, "`weights` should be left out where `kind` is worst."),
        (
            {"ensemble": {"kind": "weighted", "weights": [1.0]}},
            "`ensemble.weights` should be one per surrogate, 3. Found 1.",
        ),
        ({"transformations": {"every": 0}}, "greater than or equal to 1"),
        ({"transformations": {"rotation": 181}}, "less than or equal to 180"),
        ({"transformations": {"hue": 0.6}}, "less than or equal to 0.5"),
        ({"transformations": {"scale": [1.1, 0.9]}}, "`scale` should be two numbers, the smaller one first."),
        ({"transformations": {"scale": [0.0, 0.9]}}, "greater than 0"),
        ({"step": {"decay": 1.0}}, "less than 1"),
        ({"budget": {"iterations": 0}}, "greater than or equal to 1"),
        ({"budget": {"radius": 0}}, "greater than 0"),
        (
            {"budget": {"keep": "last", "perceptual": 0.3}},
            "`perceptual` should be null where `keep` is last. Found 0.3.",
        ),
        ({"goal": "distractor", "loss": {"kind": "distribution"}}, "`loss.toward` should be 'distractor'"),
        ({"judging": {"heldout": {"a/b": MODEL}}}, "pattern"),
        ({"judging": {"heldout": {"plain": MODEL}}}, "should give models names of their own. Found plain twice."),
        (
            {"judging": {"heldout": {"a": MODEL}, "siblings": {"a": MODEL}}},
            "`judging` should give models names of their own. Found a twice.",
        ),
    ],
)  # fmt: skip
def test_a_rule_and_its_message(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        settings_of(values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "reader"),
    [
        ({"terms": [{"kind": "contrast"}]}, "contrast"),
        ({"terms": [{"kind": "replace"}]}, "replace"),
        ({"goal": "distractor"}, "goal"),
        ({"loss": {"kind": "distribution", "toward": "distractor"}}, "loss"),
    ],
)
def test_who_reads_distractors_is_told_how_they_are_chosen(values: dict[str, Any], reader: str) -> None:
    assert settings_of(values).prompts.distractor == "confusion"
    with pytest.raises(ValidationError, match=rf"`prompts\.distractor` should say how .* for {reader} reads them"):
        settings_of(values | {"prompts": {"distractor": "none"}})


def test_rules_between_sections_are_told_at_once() -> None:
    twice = [{"kind": "entropy"}, {"kind": "entropy"}]
    wrong = {"terms": twice, "ensemble": {"kind": "weighted", "weights": [1.0]}, "budget": {"stop_margin": 9.0}}
    with pytest.raises(SettingsError) as caught:
        check_perturbation(wrong)
    found = [fault.split(" should ")[0] for fault in caught.value.faults]
    assert found == ["`terms`", "`loss.kappa`", "`ensemble.weights`"]


# Shipped files -------------------------------------------------------------------------------------------------------


def shipped(name: str) -> PerturbationSettings:
    return load_perturbation(configuration_folder() / f"{name}.yaml")


def without(settings: PerturbationSettings, *dotted: str) -> dict[str, Any]:
    """All that is set but for these keys, each of which is there."""
    values = settings.model_dump(mode="json")
    for key in dotted:
        *above, last = key.split(".")
        section = values
        for name in above:
            section = section[name]
        del section[last]
    return values


def test_the_fair_baseline_is_the_published_one_on_all_surrogates() -> None:
    one, mean, ours = (shipped(name) for name in ("perturb-baseline", "perturb-baseline-mean", "perturb-full"))
    assert without(mean, "name", "surrogates") == without(one, "name", "surrogates")
    assert mean.surrogates == ours.surrogates
    assert mean.surrogates.items() > one.surrogates.items()
    assert (mean.images, mean.judging) == (ours.images, ours.judging)


def test_the_default_is_the_full_perturbation_of_fewer_pictures() -> None:
    small, full = shipped("perturb"), shipped("perturb-full")
    changed = ("name", "batch", "images.count")
    assert without(small, *changed) == without(full, *changed)
    assert small.images.count is not None
    assert full.images.count is not None
    assert small.images.count < full.images.count


@pytest.mark.parametrize(
    ("row", "preset"),
    [("baseline", "perturb-baseline"), ("baseline+mean", "perturb-baseline-mean"), ("full-longer", "perturb-full")],
)
def test_the_ablations_rows_are_the_shipped_attacks(row: str, preset: str) -> None:
    """Which row makes the reference rows, ``rebuilt`` among them, is the ablation's own."""
    ablation = load_ablation(configuration_folder() / "perturb-ablation.yaml")
    (found,) = [one.settings for one in ablation.rows if one.key == row]
    assert isinstance(found, PerturbationSettings)
    own = ("name", "threads", "judging.references", "judging.rebuilt")
    assert without(found, *own) == without(shipped(preset), *own)
