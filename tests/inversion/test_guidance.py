"""Classifier guidance: the formula by hand, its direction by the classifier itself."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.guidance import ClassifierGuidance, guidance_strength, turned_noise
from diffaudit.inversion.plans import SamplePlan
from diffaudit.inversion.sampling import sample
from diffaudit.models.classifier import Classifier
from diffaudit.models.prior import DiffusionPrior


def test_the_noise_is_turned_by_a_share_of_its_own_length_against_the_gradient() -> None:
    epsilon = torch.tensor([[3.0, 4.0], [0.0, 2.0]]).view(2, 2, 1, 1)
    gradient = torch.tensor([[0.0, -7.0], [1e-3, 0.0]]).view(2, 2, 1, 1)
    turned = turned_noise(epsilon, gradient, torch.tensor([0.8, 0.5]), torch.tensor([0.1, 0.2]))
    # Lengths 5 and 2: steps of 0.1 * 0.8 * 5 and 0.2 * 0.5 * 2, whatever the gradients' lengths.
    expected = torch.tensor([[3.0, 4.4], [-0.2, 2.0]]).view(2, 2, 1, 1)
    torch.testing.assert_close(turned, expected)


def test_an_image_without_gradient_keeps_its_noise() -> None:
    epsilon = torch.randn(2, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    turned = turned_noise(epsilon, torch.zeros_like(epsilon), torch.ones(2), torch.ones(2))
    assert torch.equal(turned, epsilon)


def test_the_strength_grows_as_noise_falls() -> None:
    found = guidance_strength(torch.tensor([0.0, 0.5, 1.0]), 0.3)
    assert found.tolist() == pytest.approx([0.3 * math.exp(-5), 0.3 * math.exp(-2.5), 0.3])


class FirstEntry(nn.Module):
    """Logits of two classes: the picture's first entry, and 0."""

    def forward(self, images: Tensor) -> Tensor:
        first = images.flatten(1)[:, 0]
        return torch.stack([first, torch.zeros_like(first)], 1)


def test_each_time_step_turns_by_its_own_strength_and_noise(closed_form_prior: Callable[..., DiffusionPrior]) -> None:
    """Of three steps, the cleanest first: progress 1, 1/2 and 0 under noise levels of 0.5, 0.6 and 0.8."""
    prior = closed_form_prior(lambda latents, *_: latents)
    prior.alphas_cumprod = 1 - torch.tensor([0.5, 0.6, 0.8], dtype=torch.float64).square()
    classifier = Classifier(FirstEntry(), size=None, fingerprint="first").double()
    guidance = ClassifierGuidance(prior, classifier, torch.tensor([0, 0, 1]), 0.2, every=1)
    latents = torch.zeros(3, 3, 1, 1, dtype=torch.float64)
    epsilon = torch.tensor([3.0, 4.0, 0.0], dtype=torch.float64).view(1, 3, 1, 1).expand(3, 3, 1, 1)
    turned = guidance(latents, torch.arange(3), lambda _: epsilon, 0)
    # Of a length of 5, a fifth at most; class 0 asks for more of the first entry, class 1 for less.
    steps = [0.2 * 0.5 * 5, 0.2 * math.exp(-2.5) * 0.6 * 5, -0.2 * math.exp(-5) * 0.8 * 5]
    assert turned[:, 0].flatten().tolist() == pytest.approx([3 - step for step in steps])
    assert torch.equal(turned[:, 1:], epsilon[:, 1:])


def plan(**changes: Any) -> SamplePlan:
    values = {"steps": 3, "strength": 0.9, "guidance_scale": 1.0, "candidates": 2, "keep": 2, "views": 1, "batch": 4}
    return SamplePlan(**{**values, **changes})


def test_only_every_so_many_steps_are_turned(attacker: Attacker) -> None:
    latents = attacker.prior.encode(attacker.public.at(torch.tensor([0, 1])))
    timesteps = torch.tensor([300, 300])
    guidance = ClassifierGuidance(attacker.prior, attacker.classifier, attacker.classes[[0, 1]], 0.5, every=3)

    def predicted(noisy: Tensor) -> Tensor:
        return 0.3 * noisy

    plain = predicted(latents)
    changed = [not torch.equal(guidance(latents, timesteps, predicted, index), plain) for index in range(5)]
    assert changed == [True, False, False, True, False]


def test_guided_pictures_please_the_classifier_more(attacker: Attacker) -> None:
    embeddings = attacker.pseudo_anchors(4)
    free = sample(attacker, embeddings, plan(), seed=0)
    guided = sample(attacker, embeddings, plan(classifier_guidance=0.5, classifier_guidance_every=1), seed=0)
    order = [found.sources.argsort(stable=True) for found in (free, guided)]
    assert torch.equal(free.sources[order[0]], guided.sources[order[1]])
    assert float(guided.scores.mean()) > float(free.scores.mean())


def test_guidance_keeps_no_graph(attacker: Attacker) -> None:
    latents = attacker.prior.encode(attacker.public.at(torch.tensor([0])))
    guidance = ClassifierGuidance(attacker.prior, attacker.classifier, attacker.classes[:1], 0.5, every=1)
    found = guidance(latents, torch.tensor([300]), lambda noisy: 0.3 * noisy, 0)
    assert not found.requires_grad
