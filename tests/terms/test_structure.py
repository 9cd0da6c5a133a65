import math
from typing import Literal

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy

from diffaudit.attention import AttentionBranch, AttentionLayer, AttentionView
from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import SelfAttention, self_attention_distance

FINE, COARSE = (AttentionLayer(f"up_blocks.{number}.attn1", "up", "self") for number in (1, 0))


def maps(places: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 3, places, places, generator=generator, dtype=torch.float64).softmax(3)


def test_divergences_are_those_of_the_reference() -> None:
    after, before = maps(4, 0), maps(4, 1)
    kl = torch.tensor(entropy(after.numpy(), before.numpy(), axis=3)).mean((1, 2))
    js = torch.tensor(jensenshannon(after.numpy(), before.numpy(), axis=3) ** 2).mean((1, 2))
    # The floor under probabilities is ours.
    torch.testing.assert_close(self_attention_distance(after, before, divergence="kl"), kl, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(self_attention_distance(after, before, divergence="js"), js, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(self_attention_distance(after, before), (after - before).square().mean((1, 2, 3)))


@pytest.mark.parametrize("divergence", ["mse", "kl", "js"])
def test_bounds_are_reached_and_numbers_stay_finite(divergence: Literal["mse", "kl", "js"]) -> None:
    after, before = torch.eye(2)[None, :1].requires_grad_(), torch.eye(2)[None, 1:]
    most = {"mse": 1.0, "kl": -math.log(1e-7), "js": math.log(2)}[divergence]
    distance = self_attention_distance(after, before, divergence=divergence)
    assert distance.item() == pytest.approx(most, rel=1e-4)
    distance.sum().backward()
    assert after.grad is not None
    assert after.grad.isfinite().all()
    assert self_attention_distance(before, before, divergence=divergence).item() == 0


def test_term_is_the_weighted_sum_over_layers_and_the_mean_over_steps() -> None:
    steps = [
        [{FINE: maps(16, 4 * run + step), COARSE: maps(4, 40 + 4 * run + step)} for step in (0, 1)] for run in (0, 1)
    ]
    label = torch.ones(2, 1).bool()
    after, before = (AttentionBranch(steps=tuple(run), label=label) for run in steps)
    image = torch.zeros(2, 3, 4, 4)
    view = AttentionView(perturbed=after, clean=before)
    target = torch.zeros(2, dtype=torch.long)
    candidate = Candidate(image=image, source=image, target=target, logits=torch.zeros(2, 2), attention=view)
    expected = sum(
        weight / 2 * self_attention_distance(one[layer], other[layer], divergence="js")
        for one, other in zip(*steps, strict=True)
        for layer, weight in ((FINE, 2.0), (COARSE, 0.5))
    )
    assert isinstance(expected, torch.Tensor)
    found = SelfAttention(divergence="js", layers={FINE: 2.0, COARSE: 0.5})(candidate)
    torch.testing.assert_close(found, expected)


def test_refusals() -> None:
    with pytest.raises(InvalidSetting, match="`divergence` should be one of mse, kl, js"):
        SelfAttention(divergence="l1")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="`after` should have one row per image"):
        self_attention_distance(torch.ones(1, 2), torch.ones(1, 3))
