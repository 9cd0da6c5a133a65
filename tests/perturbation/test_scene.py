from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.attention import AttentionLayer
from diffaudit.errors import InvalidSetting
from diffaudit.models.attention import attention_layers
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior
from diffaudit.objective import Entry, Objective
from diffaudit.perturbation.attack import attack
from diffaudit.perturbation.distractors import nearest_names
from diffaudit.perturbation.drive import Drive
from diffaudit.perturbation.ensemble import Weighted
from diffaudit.perturbation.latents import inverted
from diffaudit.perturbation.mask import grad_cam
from diffaudit.perturbation.movers import AdamWMover
from diffaudit.perturbation.plans import BudgetPlan, MaskPlan, PathPlan, Plans, RecordingPlan, StepPlan, ViewPlan
from diffaudit.perturbation.rendering import render
from diffaudit.perturbation.scene import Perturber, chosen_distractors, prepared
from diffaudit.terms import AttentionReplacement, negated_cross_entropy
from diffaudit.weighting import Fixed

MakePrior = Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]

NAMES = ("long red hair", "short black hair", "long blond hair")
TEMPLATE = "a portrait of a person with {label}"
PATH = PathPlan(steps=4, start=2, guidance_scale=1.0)
NOTHING = RecordingPlan()


class Same(nn.Module):
    """The picture itself as the only feature map."""

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]


def constant(*shares: float) -> Classifier:
    """Predicts these shares, whatever it sees."""
    head = nn.Linear(3 * 64 * 64, len(shares))
    nn.init.zeros_(head.weight)
    head.bias.data = torch.tensor(shares).log()
    return Classifier(nn.Sequential(nn.Flatten(), head), size=None, fingerprint="")


def seeing() -> Classifier:
    """A random classifier with feature maps of 8 x 8."""
    torch.manual_seed(1)
    layers = (nn.Conv2d(3, 4, 8, stride=8), nn.Tanh(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    return Classifier(nn.Sequential(*layers), size=None, fingerprint="")


def perturber_of(prior: DiffusionPrior, surrogates: Mapping[str, Classifier] | None = None, **more: Any) -> Perturber:
    models = surrogates or {"one": seeing()}
    perceptual = PerceptualFeatures(Same())
    return Perturber(prior, models, NAMES, TEMPLATE, perceptual, **more)


def pictures() -> tuple[Tensor, Tensor]:
    return torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 2, 1])


def encoder_of() -> IdentityEncoder:
    torch.manual_seed(2)
    model = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.Linear(48, 6))
    return IdentityEncoder(model, size=None, dimension=6, fingerprint="")


class Calls:
    """How often a UNet is asked."""

    def __init__(self, prior: DiffusionPrior) -> None:
        self.count = 0
        self.handle = prior.unet.register_forward_hook(self._add)

    def _add(self, *_: object) -> None:
        self.count += 1


# Distractors ----------------------------------------------------------------------------------------------------------


def test_confusion_is_the_second_choice_of_the_mean_of_the_predictions(worded_prior: DiffusionPrior) -> None:
    """The mean is (0.55, 0.195, 0.255); that of the logits would call class 1 the rival of class 0."""
    models = {"sure": constant(0.9, 0.09, 0.01), "other": constant(0.2, 0.3, 0.5)}
    images, labels = pictures()
    found = chosen_distractors(perturber_of(worded_prior, models, distractor="confusion"), images, labels)
    assert found is not None
    assert found.tolist() == [2, 0, 0]


@pytest.mark.parametrize("kind", ["text", "confusion"])
def test_a_distractor_is_never_the_own_class(worded_prior: DiffusionPrior, kind: str) -> None:
    images = torch.rand(9, 3, 64, 64)
    labels = torch.arange(9) % 3
    found = chosen_distractors(perturber_of(worded_prior, distractor=kind), images, labels)
    assert found is not None
    assert not (found == labels).any()


def test_text_names_the_rivals_once_whatever_the_template(worded_prior: DiffusionPrior) -> None:
    perturber = perturber_of(worded_prior, distractor="text")
    between = replace(perturber, template="{label} beside a person with {distractor}")
    assert worded_prior.text is not None
    calls: list[int] = []
    handle = worded_prior.text.encoder.register_forward_hook(lambda *_: calls.append(1))
    images, labels = pictures()
    found = [chosen_distractors(between, images, labels), chosen_distractors(between, images, labels.flip(0))]
    handle.remove()
    assert len(calls) == 1
    assert found[0] is not None
    assert found[1] is not None
    assert torch.equal(found[0].flip(0), found[1])
    assert torch.equal(found[0], nearest_names(worded_prior.text, NAMES)[labels])
    words = [f"{NAMES[one]} beside a person with {NAMES[other]}" for one, other in zip(labels, found[0], strict=True)]
    scene = prepared(between, images, labels, PATH, NOTHING)
    assert torch.equal(scene.condition.tokens, worded_prior.condition(None, 3, words).tokens)


def test_none_and_a_prior_without_words(toy_prior: MakePrior, worded_prior: DiffusionPrior) -> None:
    assert chosen_distractors(perturber_of(worded_prior), *pictures()) is None
    mute = toy_prior(lambda latents, *_: latents)
    with pytest.raises(InvalidSetting, match=r"`prompts\.distractor` should be `confusion` for a prior without words"):
        chosen_distractors(perturber_of(mute, distractor="text"), *pictures())


def words_of(prior: DiffusionPrior, **more: Any) -> RecordingPlan:
    """All cross-attention on the way up and in the middle."""
    known = attention_layers(prior.unet)
    return RecordingPlan(tuple(layer for layer in known if layer.kind == "cross" and layer.place != "down"), **more)


# Words ----------------------------------------------------------------------------------------------------------------


def test_prompts_name_both_and_masks_stand_where_the_words_are(worded_prior: DiffusionPrior) -> None:
    """``START a portrait of a person with``: the first name's words stand at 7, 8 and 9, the second's at 11 to 13."""
    models = {"one": constant(0.5, 0.2, 0.3)}
    perturber = perturber_of(worded_prior, models, distractor="confusion", encoder=encoder_of())
    images, labels = pictures()
    scene = prepared(perturber, images, labels, PATH, words_of(worded_prior, with_rival=True))
    assert scene.distractors is not None
    assert scene.distractors.tolist() == [2, 0, 0]
    pairs = [(NAMES[0], NAMES[2]), (NAMES[2], NAMES[0]), (NAMES[1], NAMES[0])]
    embeddings = encoder_of()(images)
    prompts = [f"a portrait of a person with {one} and {other}" for one, other in pairs]
    swapped = [f"a portrait of a person with {other} and {one}" for one, other in pairs]
    expected = worded_prior.condition(embeddings, 3, prompts)
    assert torch.equal(scene.condition.tokens, expected.tokens)
    assert scene.condition.pooled is not None
    assert expected.pooled is not None
    assert torch.equal(scene.condition.pooled, expected.pooled)

    first = torch.zeros(3, expected.tokens.shape[1], dtype=torch.bool)
    second = first.clone()
    first[:, 7:10], second[:, 11:14] = True, True
    for masks in (scene.own_tokens, scene.swapped_tokens):
        assert masks is not None
        assert masks[1] is not None
        assert torch.equal(masks[0], first)
        assert torch.equal(masks[1], second)

    layers = words_of(worded_prior).layers
    trajectory = inverted(worded_prior, worded_prior.encode(images), expected, steps=4, start=2)
    torch.testing.assert_close(scene.latents, trajectory[-1])
    other = worded_prior.condition(embeddings, 3, swapped)
    for condition, found in ((expected, scene.clean), (other, scene.rival)):
        wanted = render(worded_prior, trajectory[-1], condition, (None, None), PATH, layers)
        assert found is not None
        for step, other_step in zip(found, wanted.steps, strict=True):
            for layer in layers:
                torch.testing.assert_close(step[layer], other_step[layer])
    back = render(worded_prior, trajectory[-1], expected, (None, None), PATH).image
    torch.testing.assert_close(scene.rebuilt, back.clamp(0, 1))


def test_without_a_distractor_prompts_name_the_label_alone(worded_prior: DiffusionPrior) -> None:
    scene = prepared(perturber_of(worded_prior), *pictures(), PATH, words_of(worded_prior))
    prompts = [f"a portrait of a person with {NAMES[label]}" for label in (0, 2, 1)]
    assert torch.equal(scene.condition.tokens, worded_prior.condition(None, 3, prompts).tokens)
    assert scene.distractors is None
    assert scene.rival is None
    assert scene.swapped_tokens is None
    assert scene.own_tokens is not None
    assert scene.own_tokens[0].nonzero()[:, 1].tolist() == [7, 8, 9] * 3
    assert scene.own_tokens[1] is None


def test_words_are_looked_for_only_where_they_are_read(worded_prior: DiffusionPrior) -> None:
    perturber = perturber_of(worded_prior)
    strange = Perturber(worded_prior, perturber.surrogates, ("bald", "wig", "hat"), TEMPLATE, perturber.perceptual)
    scene = prepared(strange, *pictures(), PATH, NOTHING)
    assert scene.own_tokens is None
    assert scene.clean == ()
    with pytest.raises(InvalidSetting, match="`label` should be of words that the tokenizer knows"):
        prepared(strange, *pictures(), PATH, words_of(worded_prior))


def test_guidance_has_a_null_condition_a_step(worded_prior: DiffusionPrior) -> None:
    perturber, guided = perturber_of(worded_prior), PathPlan(steps=4, start=2, guidance_scale=2.0)
    plain = prepared(perturber, *pictures(), PATH, NOTHING)
    assert plain.nulls == (None, None)
    found = prepared(perturber, *pictures(), guided, NOTHING).nulls
    wanted = worded_prior.condition(None, 3, "").tokens
    assert [null is not None and torch.equal(null.tokens, wanted) for null in found] == [True, True]
    fitted = PathPlan(steps=4, start=2, guidance_scale=7.5, null_steps=1, null_rate=0.1)
    optimised = prepared(perturber, *pictures(), fitted, NOTHING).nulls
    assert [null is not None and null.tokens.shape == wanted.shape for null in optimised] == [True, True]
    assert not any(null is None or null.tokens.requires_grad for null in optimised)


# Masks ----------------------------------------------------------------------------------------------------------------


def test_a_mask_of_attention_is_that_of_its_own_layers(worded_prior: DiffusionPrior) -> None:
    """Whatever other layers are recorded, for terms: the mean over the steps of the mask's two, by their weights."""
    images, labels = pictures()
    layers = words_of(worded_prior).layers
    fine = next(layer for layer in layers if layer.level == 0)
    coarse = next(layer for layer in layers if layer.level == 1)
    mask = MaskPlan("attention", layers={fine: 3.0, coarse: 1.0})
    scene = prepared(perturber_of(worded_prior), images, labels, PATH, words_of(worded_prior), mask)

    def seen(layer: AttentionLayer) -> Tensor:
        maps = [step[layer][:, :, :, 7:10].sum(3).mean(1) for step in scene.clean]
        return torch.stack(maps).mean(0)

    grown = nn.functional.interpolate(seen(coarse).view(3, 1, 4, 4), (8, 8), mode="bilinear", align_corners=False)
    mean = (3 * seen(fine).view(3, 1, 8, 8) + grown) / 4
    least, most = mean.amin((2, 3), keepdim=True), mean.amax((2, 3), keepdim=True)
    expected = (mean - least) / (most - least)
    assert scene.mask is not None
    torch.testing.assert_close(scene.mask, expected, rtol=0, atol=1e-4)
    cut = prepared(
        perturber_of(worded_prior), images, labels, PATH, words_of(worded_prior), replace(mask, threshold=0.5)
    )
    assert cut.mask is not None
    clear = (expected - 0.5).abs() > 1e-4
    assert torch.equal(cut.mask[clear], (expected >= 0.5).float()[clear])


def test_a_mask_of_attention_counts_heads_by_their_weights(worded_prior: DiffusionPrior) -> None:
    images, labels = pictures()
    recording = words_of(worded_prior, head_weights=(4.0, 1.0, 2.0, 3.0))
    layer = next(layer for layer in recording.layers if layer.level == 0)
    scene = prepared(
        perturber_of(worded_prior), images, labels, PATH, recording, MaskPlan("attention", None, {layer: 1.0})
    )
    words = torch.stack([step[layer][:, :, :, 7:10].sum(3) for step in scene.clean]).mean(0)

    def rising(seen: Tensor) -> Tensor:
        least, most = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
        return ((seen - least) / (most - least)).view(3, 1, 8, 8)

    weighted = rising((torch.tensor([0.4, 0.1, 0.2, 0.3])[:, None] * words).sum(1))
    assert scene.mask is not None
    torch.testing.assert_close(scene.mask, weighted, rtol=0, atol=1e-4)
    assert (rising(words.mean(1)) - weighted).abs().max() > 0.01


def test_a_mask_of_grad_cam_is_that_of_the_true_class(worded_prior: DiffusionPrior) -> None:
    images, labels = pictures()
    perturber = perturber_of(worded_prior)
    scene = prepared(perturber, images, labels, PATH, NOTHING, MaskPlan("grad_cam"))
    assert scene.mask is not None
    torch.testing.assert_close(scene.mask, grad_cam([seeing()], images, labels, 8))
    assert prepared(perturber, images, labels, PATH, NOTHING).mask is None


def test_attention_that_is_not_there_is_refused(worded_prior: DiffusionPrior, toy_prior: MakePrior) -> None:
    with pytest.raises(InvalidSetting, match=r"`mask\.kind` should be another where its cross-"):
        prepared(perturber_of(worded_prior), *pictures(), PATH, NOTHING, MaskPlan("attention"))
    mute = toy_prior(lambda latents, *_: latents)
    with pytest.raises(InvalidSetting, match="`prior` should have a text encoder"):
        prepared(perturber_of(mute), *pictures(), PATH, NOTHING, MaskPlan("attention"))


# Cost -----------------------------------------------------------------------------------------------------------------


def test_the_clean_way_is_gone_once(worded_prior: DiffusionPrior) -> None:
    """Two calls of the UNet to invert, two on each way back; every iteration adds the two of its own way."""
    perturber = perturber_of(worded_prior, distractor="confusion")
    images, labels = pictures()
    calls = Calls(worded_prior)
    prepared(perturber, images, labels, PATH, NOTHING)
    assert calls.count == 4
    scene = prepared(perturber, images, labels, PATH, words_of(worded_prior, with_rival=True))
    assert calls.count == 4 + 6
    objective = Objective(
        [Entry(name="replace", group="replace", term=AttentionReplacement())], Fixed({"replace": 1.0})
    )
    attack(
        perturber,
        scene,
        Drive(lambda logits: negated_cross_entropy(logits, labels), Weighted(), lambda _: 1.0),
        objective,
        AdamWMover(0.01),
        Plans(
            PATH,
            words_of(worded_prior, with_rival=True),
            ViewPlan(0, 1, 0.0, (1.0, 1.0), 0.0, 0.0),
            StepPlan("adamw", 0.01, 0.9, 1.0),
            BudgetPlan(iterations=2, radius=None, perceptual=None, stop_margin=None),
        ),
        goal=None,
        numbers=range(3),
        seed=0,
    )
    calls.handle.remove()
    assert calls.count == 10 + 3 * 2
