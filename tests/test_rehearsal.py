"""What is refused before a picture is attacked: every fault by its message, on models and pictures of known classes."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffaudit.build import LabelledImages, build_perturber, build_plans, rehearse
from diffaudit.data.captions import HAIR_LABELS
from diffaudit.errors import InvalidSetting
from diffaudit.judging.perturbed import PerturbationJudge, Role
from diffaudit.models.classifier import Classifier
from diffaudit.perturbation.plans import Plans, RecordingPlan
from diffaudit.perturbation.scene import Perturber
from diffaudit.settings import PerturbationSettings

WITHOUT: Any = None
LONG = " ".join(HAIR_LABELS[:4])
"""A name of twelve words: beside a short one it is within the text encoder's length, beside another such it is not."""
UNREAD = Plans(WITHOUT, RecordingPlan(), WITHOUT, WITHOUT, WITHOUT)
ABSENT = {"terms": [{"kind": "entropy", "layers": {"levels": [7]}}]}


class Blocks:
    """A prior whose autoencoder knows sides of whole blocks alone, as a folding one does."""

    def __init__(self, block: int = 8) -> None:
        self.block = block

    def encode(self, images: Tensor) -> Tensor:
        return functional.avg_pool2d(images, self.block, ceil_mode=True)

    def decode(self, latents: Tensor) -> Tensor:
        return functional.interpolate(latents, scale_factor=self.block)


def classifier(classes: int, seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, classes))
    return Classifier(network, size=None, fingerprint=str(seed))


def pictures(classes: int = 10, *, side: int = 64) -> LabelledImages:
    images = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    return LabelledImages(images, torch.tensor([0]), ("one",), HAIR_LABELS[:classes])


def tried(
    changes: dict[str, Any],
    *,
    roles: dict[str, Role] | None = None,
    shown: LabelledImages | None = None,
    **models: Classifier,
) -> None:
    """A rehearsal of a run whose models are these, all surrogates but where ``roles`` say otherwise."""
    settings = PerturbationSettings.model_validate({"terms": []} | changes)
    known = shown or pictures(models["seen"].logits(torch.zeros(1, 3, 8, 8)).shape[1])
    prior: Any = Blocks()
    perturber = Perturber(prior, {"seen": models["seen"]}, known.classes, "{label}", WITHOUT)
    given: dict[str, Role] = dict.fromkeys(models, "surrogate")
    rehearse(settings, perturber, UNREAD, PerturbationJudge(models, given | (roles or {}), WITHOUT), known)


def test_models_of_the_pictures_classes_pass() -> None:
    tried({}, seen=classifier(10), other=classifier(10, 1))


@pytest.mark.parametrize(
    ("role", "place"),
    [("surrogate", "surrogates"), ("heldout", r"judging\.heldout"), ("sibling", r"judging\.siblings")],
)
@pytest.mark.parametrize("classes", [9, 11])
def test_a_model_of_other_classes_is_named_with_both_numbers(role: Role, place: str, classes: int) -> None:
    message = rf"`{place}\.odd` should answer for as many classes as the pictures have names, 10\. Found {classes}\."
    with pytest.raises(InvalidSetting, match=message):
        tried({}, roles={"odd": role}, seen=classifier(10), odd=classifier(classes, 1))


def test_pictures_must_come_back_in_their_size() -> None:
    with pytest.raises(InvalidSetting, match=r"`images\.size` should be a side .* Found '60, which comes back as 64'"):
        tried({}, shown=pictures(side=60), seen=classifier(10))


def test_pictures_must_be_large_enough_to_be_compared() -> None:
    with pytest.raises(InvalidSetting, match="sides of at least 11 pixels"):
        tried({}, shown=pictures(side=8), seen=classifier(10))


def test_labels_that_no_surrogate_shares_are_refused() -> None:
    """Ten pictures of which the model takes each for the class before: as where classes are counted from 1."""
    seen = classifier(10)
    torch.manual_seed(1)
    images = torch.randint(256, (10, 3, 64, 64), dtype=torch.uint8)
    labels = seen.logits(images.float() / 255).argmax(1)
    right = LabelledImages(images, labels, tuple("abcdefghij"), HAIR_LABELS)
    tried({}, shown=right, seen=seen)
    tried({}, shown=replace(right, labels=torch.cat([labels[:1], (labels[1:] + 1) % 10])), seen=seen)
    with pytest.raises(InvalidSetting, match=r"`images` should be labelled as .*10 pictures, all of them wrong"):
        tried({}, shown=replace(right, labels=(labels + 1) % 10), seen=seen)


@pytest.mark.parametrize(("goal", "least"), [(None, 3), ("distractor", 4)])
def test_dlr_needs_its_classes(goal: Any, least: int) -> None:
    asked = {"loss": {"kind": "dlr"}, "goal": goal}
    tried(asked, seen=classifier(least))
    with pytest.raises(InvalidSetting, match=f"`classes` should be at least {least} for this ratio"):
        tried(asked, seen=classifier(least - 1))


def test_grad_cam_needs_maps() -> None:
    maps = Classifier(
        nn.Sequential(nn.Conv2d(3, 4, 8, stride=8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 10)),
        size=None,
        fingerprint="",
    )
    tried({"mask": {"kind": "grad_cam"}}, seen=maps)
    with pytest.raises(InvalidSetting, match="should show feature maps for Grad-CAM"):
        tried({"mask": {"kind": "grad_cam"}}, seen=classifier(10))


def test_terms_and_words_are_tried() -> None:
    settings = PerturbationSettings.model_validate({"prompts": {"distractor": "text", "name_rival": "always"}})
    perturber = build_perturber(settings, HAIR_LABELS)
    models = dict(perturber.surrogates)
    judge = PerturbationJudge(models, dict.fromkeys(models, "surrogate"), perturber.perceptual)
    plans = build_plans(settings, perturber)
    rehearse(settings, perturber, plans, judge, pictures())
    assert perturber.nearest_names.shape == (10,)
    strange = replace(perturber, names=("badger", *HAIR_LABELS[1:]))
    with pytest.raises(InvalidSetting, match="`label` should be of words that the tokenizer knows"):
        rehearse(settings, strange, plans, judge, pictures())
    absent = settings.model_copy(update={"terms": PerturbationSettings.model_validate(ABSENT).terms})
    with pytest.raises(InvalidSetting, match="`layers` should be places and levels"):
        rehearse(absent, perturber, plans, judge, pictures())


@pytest.mark.parametrize(
    ("names", "distractor", "message"),
    [
        (("badger", *HAIR_LABELS[1:]), "none", "be of words that the tokenizer knows"),
        ((*HAIR_LABELS[:9], "badger"), "confusion", "be of words that the tokenizer knows"),
        ((*HAIR_LABELS[:9], " ".join(HAIR_LABELS)), "confusion", "stand within the first"),
        ((*HAIR_LABELS[:8], LONG, " ".join(HAIR_LABELS[4:8])), "confusion", "stand within the first"),
    ],
    ids=["own", "a rival's", "too long by itself", "pushed out by the longest rival alone"],
)
def test_words_are_looked_for_before_any_picture_needs_them(
    names: tuple[str, ...], distractor: Literal["none", "confusion"], message: str
) -> None:
    """The pictures' own; where rivals are named, those of every class, for any may become one."""
    prompts = {"distractor": distractor, "name_rival": "where_read" if distractor == "none" else "always"}
    settings = PerturbationSettings.model_validate({"terms": [{"kind": "entropy"}], "prompts": prompts})
    perturber = build_perturber(settings, HAIR_LABELS)
    judge = PerturbationJudge(dict(perturber.surrogates), dict.fromkeys(perturber.surrogates, "surrogate"), WITHOUT)
    plans = build_plans(settings, perturber)
    rehearse(settings, perturber, plans, judge, pictures())
    with pytest.raises(InvalidSetting, match=f"`label` should {message}"):
        rehearse(settings, replace(perturber, names=names, distractor=distractor), plans, judge, pictures())


def test_a_long_name_may_stand_beside_shorter_ones() -> None:
    settings = PerturbationSettings.model_validate(
        {"terms": [{"kind": "entropy"}], "prompts": {"name_rival": "always"}}
    )
    perturber = replace(build_perturber(settings, HAIR_LABELS), names=(*HAIR_LABELS[:9], LONG))
    judge = PerturbationJudge(dict(perturber.surrogates), dict.fromkeys(perturber.surrogates, "surrogate"), WITHOUT)
    rehearse(settings, perturber, build_plans(settings, perturber), judge, pictures())


def test_words_that_nobody_reads_may_be_any() -> None:
    settings = PerturbationSettings.model_validate({"terms": []})
    perturber = replace(build_perturber(settings, HAIR_LABELS), names=("badger", *HAIR_LABELS[1:]))
    judge = PerturbationJudge(dict(perturber.surrogates), dict.fromkeys(perturber.surrogates, "surrogate"), WITHOUT)
    rehearse(settings, perturber, build_plans(settings, perturber), judge, pictures())


def test_terms_of_the_picture_are_tried_on_its_size() -> None:
    settings = PerturbationSettings.model_validate({"terms": [{"kind": "colour", "grid": 65}]})
    perturber = build_perturber(settings, HAIR_LABELS)
    judge = PerturbationJudge(dict(perturber.surrogates), dict.fromkeys(perturber.surrogates, "surrogate"), WITHOUT)
    with pytest.raises(InvalidSetting, match="`grid` should"):
        rehearse(settings, perturber, build_plans(settings, perturber), judge, pictures())


def test_pictures_that_the_autoencoder_cannot_fold_are_refused() -> None:
    """As an unshuffling one refuses 50 pixels: in its own words, and with ours before them."""
    settings = PerturbationSettings.model_validate({"terms": []})
    perturber = build_perturber(settings, HAIR_LABELS)
    judge = PerturbationJudge(dict(perturber.surrogates), dict.fromkeys(perturber.surrogates, "surrogate"), WITHOUT)
    with pytest.raises(InvalidSetting, match=r"`images\.size` should be a side .* Found 50\. The autoencoder: "):
        rehearse(settings, perturber, build_plans(settings, perturber), judge, pictures(side=50))
