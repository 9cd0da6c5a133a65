"""Settings to a perturbation: each kind builds what it says, and the published baseline is the sum it is said to be."""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor, nn

from diffaudit.build.perturbation import (
    build_drive,
    build_perturber,
    build_plans,
    goal_of,
)
from diffaudit.build.perturbation_terms import build_terms
from diffaudit.build.victims import victims
from diffaudit.configurations import configuration_folder
from diffaudit.data.captions import CLEAR_HAIR, HAIR_LABELS, hair_clearness, hair_labels
from diffaudit.data.faces import sample_faces
from diffaudit.data.rendering import render_faces
from diffaudit.errors import InvalidSetting
from diffaudit.models.attention import attention_layers
from diffaudit.models.classifier import Classifier
from diffaudit.models.conditioning import Condition
from diffaudit.perturbation.adaea import AdaEA
from diffaudit.perturbation.attack import attack
from diffaudit.perturbation.ensemble import Agreement, EnsembleRule, Weighted, Worst
from diffaudit.perturbation.improvement import Improvement
from diffaudit.perturbation.movers import Mover
from diffaudit.perturbation.plans import BudgetPlan, PathPlan, Plans, RecordingPlan, StepPlan, ViewPlan
from diffaudit.perturbation.rendering import RawMaps, render
from diffaudit.perturbation.scene import Perturber, Scene, prepared
from diffaudit.settings import LabelledPictures, PerturbationSettings, WordedFaces
from diffaudit.terms import (
    AttentionContrast,
    AttentionDrift,
    AttentionEntropy,
    AttentionReplacement,
    AttentionVariance,
    CoarseColour,
    Frequency,
    HierarchicalPerceptual,
    PixelDistance,
    SelfAttention,
)
from diffaudit.training.populations import unseen_crowd

CLASSES = 10


@pytest.fixture
def values(tiny_world: Path) -> dict[str, Any]:
    """Settings of a small run on two faces: an untrained prior, one small trained surrogate."""

    def trained(name: str) -> dict[str, str]:
        return {"kind": "trained", "folder": str(tiny_world / name)}

    return {
        "images": {"kind": "faces", "count": 2},
        "prior": {"kind": "diffusers", "location": str(tiny_world / "prior")},
        "prompts": {"identity": trained("identity")},
        "surrogates": {"residual": {"kind": "bundled", "name": "hair-residual"}},
        "perceptual": trained("attributes"),
        "latents": {"steps": 4, "start": 2},
    }


def settings_of(values: dict[str, Any], **changes: Any) -> PerturbationSettings:
    return PerturbationSettings.model_validate(values | changes)


def fake_scene(*, distractors: bool = True) -> Scene:
    """Two pictures of which losses and rules read the classes alone."""
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(2, 4, 8, 8)
    rivals = torch.tensor([3, 5]) if distractors else None
    return Scene(
        images=images,
        labels=torch.tensor([1, 0]),
        distractors=rivals,
        condition=Condition(torch.zeros(2, 1, 1)),
        nulls=(None,),
        latents=nothing,
        rebuilt=images,
        residual=None,
        clean=(),
        rival=None,
        own_tokens=None,
        swapped_tokens=None,
        mask=None,
    )


def logits_of() -> Tensor:
    return 3 * torch.randn(2, CLASSES, generator=torch.Generator().manual_seed(1))


# Losses ---------------------------------------------------------------------------------------------------------------


def uniform(logits: Tensor) -> Tensor:
    return torch.full_like(logits, 1 / CLASSES)


def peaked(logits: Tensor) -> Tensor:
    wanted = torch.full_like(logits, 0.2 / (CLASSES - 1))
    wanted[0, 3] = wanted[1, 5] = 0.8
    return wanted


def divergence(one: Tensor, other: Tensor) -> Tensor:
    middle = (one + other) / 2
    return ((one * (one / middle).log()).sum(1) + (other * (other / middle).log()).sum(1)) / 2


LABELS, GOAL = torch.tensor([1, 0]), torch.tensor([3, 5])


def rival_of(logits: Tensor, label: Tensor) -> Tensor:
    return torch.stack([torch.cat([row[:one], row[one + 1 :]]).max() for row, one in zip(logits, label, strict=True)])


@pytest.mark.parametrize(
    ("loss", "goal", "expected"),
    [
        ({"kind": "ce"}, None, lambda z: -nn.functional.cross_entropy(z, LABELS, reduction="none")),
        ({"kind": "ce"}, "distractor", lambda z: nn.functional.cross_entropy(z, GOAL, reduction="none")),
        (
            {"kind": "margin", "kappa": 2.0},
            None,
            lambda z: (z[[0, 1], LABELS] - rival_of(z, LABELS) + 2).relu(),
        ),
        (
            {"kind": "margin", "kappa": 2.0},
            "distractor",
            lambda z: (rival_of(z, GOAL) - z[[0, 1], GOAL] + 2).relu(),
        ),
        ({"kind": "distribution"}, None, lambda z: divergence(z.softmax(1), uniform(z))),
        (
            {"kind": "distribution", "toward": "distractor", "share": 0.8},
            None,
            lambda z: divergence(z.softmax(1), peaked(z)),
        ),
        (
            {"kind": "distribution", "distance": "ce"},
            None,
            lambda z: nn.functional.cross_entropy(z, uniform(z), reduction="none"),
        ),
    ],
)
def test_a_loss_is_what_it_is_called(values: dict[str, Any], loss: dict[str, Any], goal: Any, expected: Any) -> None:
    settings = settings_of(values, loss=loss, goal=goal, terms=[], budget={"stop_margin": None})
    names = tuple("abcdefghij")
    drive = build_drive(settings, perturber_without_models(names), fake_scene())
    torch.testing.assert_close(drive.loss(logits_of()), expected(logits_of()))


def perturber_without_models(names: tuple[str, ...]) -> Perturber:
    nothing: Any = None
    return Perturber(nothing, {}, names, "{label}", nothing)


@pytest.mark.parametrize("goal", [None, "distractor"])
def test_dlr_does_not_know_the_scale_of_logits(values: dict[str, Any], goal: Any) -> None:
    settings = settings_of(values, loss={"kind": "dlr"}, goal=goal, terms=[])
    drive = build_drive(settings, perturber_without_models(tuple("abcdefghij")), fake_scene())
    found, logits = drive.loss(logits_of()), logits_of().sort(1).values
    torch.testing.assert_close(drive.loss(7 * logits_of() + 1), found)
    if goal is None:  # Croce and Hein, 2020, equation 6, to be lowered
        lead = logits_of()[[0, 1], LABELS] - rival_of(logits_of(), LABELS)
        torch.testing.assert_close(found, lead / (logits[:, -1] - logits[:, -3]))


def test_dlr_toward_a_goal_by_hand(values: dict[str, Any]) -> None:
    """The true class leads the goal by 4 - 1 on a scale of 4 - (1 + 0) / 2, and follows it by 4 on one of 6 - 1 / 2."""
    settings = settings_of(values, loss={"kind": "dlr"}, goal="distractor", terms=[])
    drive = build_drive(settings, perturber_without_models(tuple("abcdef")), fake_scene())
    logits = torch.tensor([[0.0, 4.0, 3.0, 1.0, 0.0, 0.0], [2.0, 0.0, 0.0, 0.0, 1.0, 6.0]])
    torch.testing.assert_close(drive.loss(logits), torch.tensor([3 / 3.5, -4 / 5.5]))


def test_a_goal_is_the_distractors(values: dict[str, Any]) -> None:
    scene = fake_scene()
    assert goal_of(settings_of(values), scene) is None
    goal = goal_of(settings_of(values, goal="distractor"), scene)
    assert goal is not None
    assert goal.tolist() == [3, 5]


def test_the_drives_weight_moves_over_the_iterations(values: dict[str, Any]) -> None:
    loss = {"kind": "ce", "weight": {"start": 1.0, "end": 3.0}}
    settings = settings_of(values, loss=loss, terms=[], budget={"iterations": 5}, ensemble={"kind": "mean"})
    drive = build_drive(settings, perturber_without_models(("a", "b")), fake_scene())
    assert [drive.weight(number) for number in range(5)] == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0])
    constant = build_drive(settings_of(values, loss={"kind": "ce", "weight": 4.0}), *drive_parts())
    assert [constant.weight(number) for number in (0, 29)] == [4.0, 4.0]


def drive_parts() -> tuple[Perturber, Scene]:
    return perturber_without_models(("a", "b")), fake_scene()


# Ensembles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ensemble", "kind"),
    [
        ({"kind": "mean"}, Weighted),
        ({"kind": "weighted", "weights": [3.0, 1.0]}, Weighted),
        ({"kind": "worst"}, Worst),
        ({"kind": "agreement", "tau": 2.0}, Agreement),
        ({"kind": "improvement", "tau": 3.0}, Improvement),
        ({"kind": "adaea", "as_published": False}, AdaEA),
        ({"kind": "adaea", "as_published": True}, AdaEA),
    ],
)
@pytest.mark.parametrize("goal", [None, "distractor"])
def test_every_rule_builds_and_weighs(
    values: dict[str, Any], ensemble: dict[str, Any], kind: type[EnsembleRule], goal: Any
) -> None:
    models = {"one": {"kind": "bundled", "name": "hair-plain"}, "two": {"kind": "bundled", "name": "hair-squeeze"}}
    settings = settings_of(values, ensemble=ensemble, surrogates=models, goal=goal, terms=[])
    perturber = build_perturber(settings, HAIR_LABELS)
    one, other = (build_drive(settings, perturber, fake_scene()) for _ in range(2))
    assert type(one.rule) is kind
    assert one.rule is not other.rule
    generator = torch.Generator().manual_seed(2)
    gradients, numbers = torch.randn(2, 2, 3, 8, 8, generator=generator), torch.randn(2, 2, generator=generator)
    combined = one.rule(gradients, numbers, -numbers)
    torch.testing.assert_close(combined.weights.sum(0), torch.ones(2))
    for name in ("tau", "as_published"):
        if name in ensemble:
            assert getattr(one.rule, name) == ensemble[name]
    if ensemble["kind"] == "weighted":
        assert combined.weights[:, 0].tolist() == pytest.approx([0.75, 0.25])


class Watching(nn.Module):
    """Two classes; the lead of the first is ``gain`` for every byte that one colour of the only pixel is off 20."""

    def __init__(self, channel: int, gain: float) -> None:
        super().__init__()
        self.channel, self.gain = channel, gain

    def forward(self, images: Tensor) -> Tensor:
        lead = self.gain * (255 * images[:, self.channel, 0, 0] - 20).abs()
        return torch.stack([lead, torch.zeros_like(lead)], dim=1)


def away(lead: Tensor) -> Tensor:
    """The cross-entropy of the first class."""
    return (1 + (-lead).exp()).log()


def into(lead: Tensor) -> Tensor:
    """``log(1 + p)`` of the second class."""
    return (1 + 1 / (1 + lead.exp())).log()


@pytest.mark.parametrize(("goal", "raised"), [(None, away), ("distractor", into)])
@pytest.mark.parametrize("residual", [True, False])
def test_adaea_steps_from_the_unperturbed_picture_and_raises_the_loss(
    values: dict[str, Any], goal: Any, raised: Callable[[Tensor], Tensor], residual: bool
) -> None:
    """One model watches red, one green: a step of two bytes lowers the lead in one by 1 or by 0.8, in the other not.

    From the picture a step toward byte 20 goes up, from the other one, which is not the unperturbed one, down.
    """
    leads = torch.tensor([[4.0, 2.0], [4.0, 2.0]])
    red, green = 20 - leads[0] / 0.5, 20 - leads[1] / 0.4
    picture = (torch.stack([red, green, green], dim=1) / 255)[:, :, None, None]
    other = 60 / 255 - picture
    scene = replace(
        fake_scene(),
        images=picture if residual else other,
        rebuilt=other if residual else picture,
        residual=picture - other if residual else None,
        labels=torch.tensor([0, 0]),
        distractors=torch.tensor([1, 1]),
    )
    settings = settings_of(values, ensemble={"kind": "adaea"}, loss={"kind": "ce"}, goal=goal, terms=[])
    models = {
        "red": Classifier(Watching(0, 0.5), size=None, fingerprint="red"),
        "green": Classifier(Watching(1, 0.4), size=None, fingerprint="green"),
    }
    rule = build_drive(settings, replace(perturber_without_models(("a", "b")), surrogates=models), scene).rule
    first, second = leads
    others = torch.stack([raised(second) / raised(second - 0.8), raised(first) / raised(first - 1)])
    assert isinstance(rule, AdaEA)
    torch.testing.assert_close(rule.weights, (10 * others).softmax(0), rtol=1e-4, atol=1e-5)


def test_an_ensembles_space_and_length(values: dict[str, Any]) -> None:
    default = build_drive(settings_of(values), *drive_parts())
    other = build_drive(settings_of(values, ensemble={"space": "latent", "unit": False}), *drive_parts())
    assert (default.in_latent, default.unit) == (False, True)
    assert (other.in_latent, other.unit) == (True, False)
    fused = build_drive(settings_of(values, ensemble={"kind": "mean", "of": "logits"}), *drive_parts())
    assert (default.of_logits, fused.of_logits) == (False, True)


# Terms ----------------------------------------------------------------------------------------------------------------

EVERY_TERM: dict[str, type] = {
    "variance": AttentionVariance,
    "entropy": AttentionEntropy,
    "contrast": AttentionContrast,
    "replace": AttentionReplacement,
    "drift": AttentionDrift,
    "self_attention": SelfAttention,
    "frequency": Frequency,
    "perceptual": HierarchicalPerceptual,
    "l2": PixelDistance,
    "colour": CoarseColour,
}


def test_every_term_builds_and_is_weighed(values: dict[str, Any]) -> None:
    terms = [{"kind": kind, "weight": number + 1.0, "scale": "ema"} for number, kind in enumerate(EVERY_TERM)]
    terms[0]["weight"] = {"start": 1.0, "end": 5.0}
    settings = settings_of(values, terms=terms, budget={"iterations": 3})
    objective = build_terms(settings, build_perturber(settings, HAIR_LABELS), 4)
    assert objective is not None
    assert {name: type(term) for name, term in objective.terms.items()} == EVERY_TERM
    weights = {kind: number + 1.0 for number, kind in enumerate(EVERY_TERM)}
    assert objective.weighting.weights(0) == weights
    assert objective.weighting.weights(2) == weights | {"variance": 5.0}
    assert all(scale.magnitude.shape == (4,) for scale in objective.scales.values())


def test_what_a_term_is_told(values: dict[str, Any]) -> None:
    terms: list[dict[str, Any]] = [
        {"kind": "variance", "side": 4, "joint": True},
        {"kind": "entropy", "side": 6},
        {"kind": "contrast", "margin": 0.3},
        {"kind": "replace", "norm": "l2"},
        {"kind": "self_attention", "divergence": "js"},
    ]
    settings = settings_of(values, terms=terms)
    perturber = build_perturber(settings, HAIR_LABELS)
    found: Any = build_terms(settings, perturber, 1)
    assert (found.terms["variance"].side, found.terms["variance"].joint) == (4, True)
    assert found.terms["entropy"].side == 6
    assert found.terms["contrast"].margin == 0.3
    assert found.terms["replace"].norm == "l2"
    assert found.terms["self_attention"].divergence == "js"
    assert set(found.scales) == {term["kind"] for term in terms}  # attention is brought to order one
    plain: Any = build_terms(settings_of(values, terms=[{"kind": "l2"}]), perturber, 1)
    assert not plain.scales


def test_what_a_term_of_the_picture_is_told(values: dict[str, Any]) -> None:
    settings = settings_of(values, terms=[{"kind": "frequency", "detail": "wavelet"}, {"kind": "colour", "grid": 5}])
    found: Any = build_terms(settings, build_perturber(settings, HAIR_LABELS), 1)
    assert found.terms["frequency"].detail == "wavelet"
    assert found.terms["colour"].grid == 5


def test_no_terms_are_no_objective(values: dict[str, Any]) -> None:
    nothing: Any = None
    assert build_terms(settings_of(values, terms=[]), nothing, 1) is None


# Plans ----------------------------------------------------------------------------------------------------------------


KEPT = {"entropy": {"kind": "entropy"}, "self": {"kind": "self_attention"}, "drift": {"kind": "drift"}}


@pytest.mark.parametrize(
    ("changes", "kinds", "places"),
    [
        ({"terms": []}, set(), set()),
        ({"terms": [KEPT["entropy"]]}, {"cross"}, {"mid", "up"}),
        ({"terms": [KEPT["drift"], KEPT["self"]]}, {"cross", "self"}, {"mid", "up"}),
        ({"terms": [KEPT["self"] | {"layers": {"mid": 0.0, "up": 0.0, "down": 2.0}}]}, {"self"}, {"down"}),
        ({"terms": [{"kind": "l2"}], "mask": {"kind": "attention"}}, {"cross"}, {"mid", "up"}),
        ({"terms": [{"kind": "frequency"}], "mask": {"kind": "grad_cam"}}, set(), set()),
    ],
)
def test_no_more_is_recorded_than_is_read(
    values: dict[str, Any], changes: dict[str, Any], kinds: set[str], places: set[str]
) -> None:
    plans = plans_of(values, **changes)
    assert plans.path == PathPlan(4, 2, 1.0, None, 0.0, residual=True)
    assert {layer.kind for layer in plans.recording.layers} == kinds
    assert {layer.place for layer in plans.recording.layers} == places
    assert (plans.recording.window, plans.recording.keep_heads) == ((0.5, 0.9), 0.9)
    assert not plans.recording.with_rival


def test_heads_count_what_the_settings_say(values: dict[str, Any]) -> None:
    asked = plans_of(values, terms=[KEPT["entropy"]], attention={"keep_heads": 0.7, "head_weights": [4, 1, 2, 3]})
    assert (asked.recording.keep_heads, asked.recording.head_weights) == (0.7, (4.0, 1.0, 2.0, 3.0))
    assert plans_of(values, terms=[KEPT["entropy"]]).recording.head_weights is None


def test_a_mask_has_layers_and_levels_of_its_own(values: dict[str, Any]) -> None:
    """A level may count for more than the next: its place's weight times its own."""
    layers = {"down": 0.5, "mid": 0.0, "up": 2.0, "levels": {0: 3.0, 1: 1.0}}
    terms = [{"kind": "entropy", "layers": {"mid": 1.0, "up": 0.0}}]
    plans = plans_of(values, terms=terms, mask={"kind": "attention", "threshold": 0.4, "layers": layers})
    assert (plans.mask.kind, plans.mask.threshold) == ("attention", 0.4)
    counts = {(layer.place, layer.level): weight for layer, weight in plans.mask.layers.items()}
    assert counts == {("down", 0): 1.5, ("down", 1): 0.5, ("up", 0): 6.0, ("up", 1): 2.0}
    assert {layer.place for layer in plans.recording.layers} == {"down", "mid", "up"}
    fine = plans_of(values, terms=[], mask={"kind": "attention", "layers": layers | {"levels": {0: 3.0, 1: 0.0}}})
    assert {layer.level for layer in fine.mask.layers} == {0}
    assert not plans_of(values, terms=[], mask={"kind": "grad_cam"}).mask.layers


def test_each_term_reads_the_layers_it_names(values: dict[str, Any]) -> None:
    """What is recorded is all of them together; what counts differs from term to term."""
    terms = [
        {"kind": "variance", "layers": {"down": 1.0, "mid": 0.0, "up": 1.0, "levels": [1]}},
        {"kind": "replace", "layers": {"mid": 2.0, "up": 0.0}},
        {"kind": "self_attention", "layers": {"down": 1.0, "up": 3.0}},
    ]
    settings = settings_of(values, terms=terms)
    perturber = build_perturber(settings, HAIR_LABELS)
    found: Any = build_terms(settings, perturber, 1)
    read = {name: term.layers for name, term in found.terms.items()}
    assert {(one.place, one.level, one.kind, weight) for one, weight in read["variance"].items()} == {
        ("down", 1, "cross", 1.0),
        ("up", 1, "cross", 1.0),
    }
    assert {(one.place, one.kind, weight) for one, weight in read["replace"].items()} == {("mid", "cross", 2.0)}
    assert {(one.place, weight) for one, weight in read["self_attention"].items()} == {
        ("down", 1.0),
        ("mid", 1.0),
        ("up", 3.0),
    }
    recording = build_plans(settings, perturber).recording
    assert set(recording.layers) == {layer for layers in read.values() for layer in layers}
    assert len(set(recording.layers)) == len(recording.layers)
    assert recording.with_rival


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"terms": [{"kind": "entropy", "layers": {"levels": [2]}}]}, "`layers` should be places and levels"),
        (
            {"terms": [{"kind": "entropy"}], "attention": {"window": [0.1, 0.2]}},
            r"`attention\.window` should hold one of the steps on the way back, \[0\.501, 0\.751\]",
        ),
        (
            {"terms": [{"kind": "entropy"}], "attention": {"head_weights": [1.0] * 7}},
            r"`attention\.head_weights` should be one per head",
        ),
    ],
)
def test_attention_that_the_prior_does_not_have_is_refused(
    values: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        plans_of(values, **changes)


def plans_of(values: dict[str, Any], **changes: Any) -> Plans:
    settings = settings_of(values, **changes)
    return build_plans(settings, build_perturber(settings, HAIR_LABELS))


def test_plans_say_what_the_settings_say(values: dict[str, Any]) -> None:
    null_text = {"inner_steps": 7, "rate": 0.3}
    latents = {"steps": 10, "start": 4, "guidance_scale": 2.5, "null_text": null_text, "residual": False}
    views = {"samples": 3, "every": 4, "rotation": 5.0, "scale": [0.8, 1.2], "hue": 0.1, "noise": 0.2}
    step = {"kind": "momentum", "rate": 0.3, "decay": 0.5, "clip": 2.0}
    budget = {"iterations": 8, "radius": 0.7, "perceptual": 0.2, "stop_margin": 1.0}
    found = plans_of(values, terms=[], latents=latents, transformations=views, step=step, budget=budget)
    assert found == Plans(
        PathPlan(10, 4, 2.5, 7, 0.3),
        RecordingPlan((), (0.5, 0.9), 0.9),
        ViewPlan(3, 4, 5.0, (0.8, 1.2), 0.1, 0.2),
        StepPlan("momentum", 0.3, 0.5, 2.0),
        BudgetPlan(8, 0.7, 0.2, 1.0),
    )
    assert plans_of(values, terms=[], budget={"keep": "last"}).budget.keep == "last"


def test_a_perturber_holds_what_is_named(values: dict[str, Any]) -> None:
    prompts = values["prompts"] | {"template": "a {label}", "distractor": "text"}
    perturber = build_perturber(settings_of(values, prompts=prompts, terms=[{"kind": "contrast"}]), HAIR_LABELS)
    assert list(perturber.surrogates) == ["residual"]
    assert (perturber.names, perturber.template, perturber.distractor) == (HAIR_LABELS, "a {label}", "text")
    assert perturber.encoder is not None
    assert perturber.encoder.dimension == 16
    without = build_perturber(settings_of(values, prompts={"identity": None}), HAIR_LABELS)
    assert without.encoder is None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"terms": [{"kind": "entropy"}]}, False),
        ({"terms": [{"kind": "entropy"}, {"kind": "contrast"}]}, True),
        ({"terms": [{"kind": "replace"}]}, True),
        ({"terms": [], "goal": "distractor"}, True),
        ({"terms": [], "loss": {"kind": "distribution", "toward": "distractor"}}, True),
        ({"terms": [], "prompts": {"identity": None, "name_rival": "always"}}, True),
        ({"terms": [], "prompts": {"identity": None, "template": "a {label} and no {distractor}"}}, True),
        ({"terms": [], "prompts": {"identity": None, "distractor": "none"}}, False),
    ],
)
def test_the_rival_is_named_where_it_is_read_or_asked_for(
    values: dict[str, Any], changes: dict[str, Any], named: bool
) -> None:
    perturber = build_perturber(settings_of(values, **changes), HAIR_LABELS)
    assert (perturber.distractor != "none") == named


# Pictures -------------------------------------------------------------------------------------------------------------


def test_faces_know_what_they_deserve_to_be_called() -> None:
    found = victims(WordedFaces(count=6, seed=3, skip=2))
    assert found.deserved is not None
    images = found.images.float() / 255
    assert torch.equal(found.deserved(images), found.labels)
    assert not torch.equal(found.deserved(images * 0.2), found.labels)


def test_skipped_faces_are_those_before() -> None:
    every, later = victims(WordedFaces(count=5, seed=3)), victims(WordedFaces(count=3, seed=3, skip=2))
    assert later.names == every.names[2:]
    assert torch.equal(later.labels, every.labels[2:])


def test_faces_have_clear_hair_and_the_words_for_it() -> None:
    crowd = unseen_crowd()
    found, again, other = (victims(WordedFaces(count=5, seed=seed)) for seed in (3, 3, 4))
    assert len(found) == 5
    assert found.images.shape == (5, 3, 64, 64)
    assert found.images.dtype == torch.uint8
    assert found.classes == HAIR_LABELS
    assert found.names == tuple(f"face-000{number}" for number in range(5))
    assert torch.equal(found.images, again.images)
    assert torch.equal(found.labels, again.labels)
    assert not torch.equal(found.images, other.images)
    clear = crowd[hair_clearness(crowd) >= CLEAR_HAIR]
    people = clear[torch.randperm(len(clear), generator=torch.Generator().manual_seed(3))[:5]]
    assert found.labels.tolist() == hair_labels(people).tolist()
    drawn = render_faces(sample_faces(people, seed=3 + 99_000))
    assert torch.equal(found.images, (drawn * 255).round().byte())
    with pytest.raises(InvalidSetting, match=rf"`images\.count` should be at most {len(clear)}"):
        victims(WordedFaces(count=1001))


def test_labelled_pictures_are_read(tmp_path: Path) -> None:
    from PIL import Image

    for name, level in (("a.png", 50), ("b.png", 90)):
        Image.new("RGB", (4, 4), (level,) * 3).save(tmp_path / name)
    (tmp_path / "labels.txt").write_text("2\n1\n")
    (tmp_path / "names.txt").write_text("fox\ncrane\n")
    setting = LabelledPictures(
        folder=tmp_path, labels=tmp_path / "labels.txt", names=tmp_path / "names.txt", first_class=1, size=4
    )
    found = victims(setting)
    assert found.images[:, 0, 0, 0].tolist() == [50, 90]
    assert found.labels.tolist() == [1, 0]
    assert (found.names, found.classes) == (("a", "b"), ("fox", "crane"))


# The published baseline -----------------------------------------------------------------------------------------------

STEPS = 5


class Recorder(Mover):
    """Keeps the gradient and moves nothing."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
        self.gradients.append(gradient)
        return latents


def variance_by_hand(steps: tuple[RawMaps, ...], tokens: Tensor, side: int) -> Tensor:
    """Mean over heads, layers down and up of one grid and steps, then one variance of all places and tokens."""
    grids = []
    read = [found for step in steps for layer, found in step.items() if layer.kind == "cross" and layer.place != "mid"]
    for maps in (found for found in read if found.shape[2] == side**2):
        grids.append(maps.mean(1).transpose(1, 2))
    mean = torch.stack(grids).mean(0)
    return torch.stack([row[own].flatten().var() for row, own in zip(mean, tokens, strict=True)])


def squares_by_hand(after: tuple[RawMaps, ...], before: tuple[RawMaps, ...]) -> Tensor:
    """The sum over all layers and all steps of each image's mean squared error of self-attention."""
    total = torch.zeros(2)
    for one, other in zip(after, before, strict=True):
        for layer in one:
            if layer.kind == "self":
                total = total + (one[layer] - other[layer]).square().mean((1, 2, 3))
    return total


def sharpened(perturber: Perturber) -> None:
    """An untrained prior attends to all alike; with larger queries and keys it does not."""
    for name, parameter in perturber.prior.unet.named_parameters():
        if name.endswith(("to_q.weight", "to_k.weight")):
            parameter.data.mul_(4)


def fitted(scene: Scene, perturber: Perturber) -> tuple[Condition | None, ...]:
    """The scene's null conditions, one a step, none of them the prior's own or another step's."""
    own = perturber.prior.condition(None, 2, "").tokens
    found = [own, *(null.tokens for null in scene.nulls if null is not None)]
    assert len(found) == 1 + STEPS
    assert not any(torch.equal(one, other) for one, other in combinations(found, 2))
    return scene.nulls


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_the_published_baseline_is_its_sum(values: dict[str, Any], guidance: float) -> None:
    """``-10 CE + 10000 Var + 100 sum of MSE``: of the term, which is a mean over steps, the weight is 100 a step."""
    preset = yaml.safe_load((configuration_folder() / "perturb-baseline.yaml").read_text())
    assert preset["latents"] == {
        "steps": 20,
        "start": 15,
        "guidance_scale": 2.5,
        "null_text": {"inner_steps": 10, "rate": 0.1},
        "residual": False,
    }
    assert (preset["step"]["kind"], preset["step"]["rate"], preset["budget"]["iterations"]) == ("adamw", 0.01, 30)
    small = {name: values[name] for name in ("images", "prior", "surrogates", "perceptual")}
    small["prompts"] = preset["prompts"] | {"identity": values["prompts"]["identity"]}
    way = {"steps": 20, "start": 20 - STEPS, "residual": False}
    small["latents"] = way if guidance == 1 else preset["latents"]
    settings = PerturbationSettings.model_validate(preset | small)
    people = victims(settings.images)
    perturber = build_perturber(settings, people.classes)
    sharpened(perturber)
    plans = build_plans(settings, perturber)
    path = PathPlan(20, 20 - STEPS, guidance)
    scene = prepared(perturber, people.images.float() / 255, people.labels, plans.path, plans.recording)
    latents = scene.latents + 0.3 * torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(0))

    layers = attention_layers(perturber.prior.unet)
    start = latents.clone().requires_grad_()
    nulls = (None,) * STEPS if guidance == 1 else fitted(scene, perturber)
    after = render(perturber.prior, start, scene.condition, nulls, path, layers)
    before = render(perturber.prior, scene.latents, scene.condition, nulls, path, layers)
    assert len(after.steps) == STEPS
    tokens = torch.zeros(2, scene.condition.tokens.shape[1], dtype=torch.bool)
    tokens[:, 7:10] = True  # START a portrait of a person with, and three words of hair
    variance = variance_by_hand(after.steps, tokens, 4)
    squares = squares_by_hand(after.steps, tuple({k: v.detach() for k, v in step.items()} for step in before.steps))
    logits = perturber.surrogates["residual"].logits(after.image)
    entropy = nn.functional.cross_entropy(logits, people.labels, reduction="none")
    parts = [
        torch.autograd.grad(part.sum(), start, retain_graph=True)[0]
        for part in (-10 * entropy, 10_000 * variance, 100 * squares)
    ]
    expected = torch.stack(parts).sum(0)
    assert all(part.abs().amax((1, 2, 3)).min() > 1e-3 for part in parts)  # none hides behind the others

    drive = build_drive(settings, perturber, scene)
    torch.testing.assert_close(drive.weight(0) * drive.loss(logits.detach()), -10 * entropy.detach())
    objective = build_terms(settings, perturber, 2)
    assert objective is not None
    asked = Recorder()
    seen: list[dict[str, Tensor]] = []
    attack(
        perturber,
        replace(scene, latents=latents),
        drive,
        objective,
        asked,
        replace(plans, budget=replace(plans.budget, iterations=1)),
        goal=None,
        numbers=(0, 1),
        seed=0,
        on_iteration=lambda step: seen.append(dict(step.parts)),
    )
    torch.testing.assert_close(seen[0]["variance"], variance.detach(), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(STEPS * seen[0]["self_attention"], squares.detach(), rtol=1e-3, atol=1e-9)
    torch.testing.assert_close(asked.gradients[0], expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert squares.min() > 0
    assert variance.min() > 0
