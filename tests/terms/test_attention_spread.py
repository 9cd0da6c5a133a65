import math

import pytest
import torch

from diffaudit.attention import AttentionBranch, AttentionLayer, AttentionView
from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import AttentionEntropy, AttentionVariance, attention_entropy, attention_variance
from diffaudit.terms.attention_maps import label_map, resized_map

FINE, COARSE = (AttentionLayer(f"up_blocks.{number}.attn2", "up", "cross") for number in (1, 0))
SELF = AttentionLayer("up_blocks.1.attn1", "up", "self")


def candidate_with(*steps: dict[AttentionLayer, torch.Tensor], label: torch.Tensor) -> Candidate:
    branch = AttentionBranch(steps=steps, label=label)
    image = torch.zeros(len(label), 3, 4, 4)
    view = AttentionView(perturbed=branch, clean=branch)
    target = torch.zeros(len(label), dtype=torch.long)
    return Candidate(image=image, source=image, target=target, logits=torch.zeros(len(label), 2), attention=view)


def test_entropy_in_closed_form() -> None:
    even = torch.full((1, 16), 0.01)
    two, one = torch.zeros(1, 16), torch.zeros(1, 16)
    two[0, :2], one[0, 5] = 0.2, 1e-3
    assert attention_entropy(even).item() == 0
    assert attention_entropy(two).item() == pytest.approx(1 - math.log(2) / math.log(16), abs=1e-4)
    assert attention_entropy(one).item() == pytest.approx(1, abs=1e-3)


def test_minimising_the_entropy_itself_gathers_and_ours_spreads() -> None:
    start = torch.tensor([[0.6, 0.2, 0.1, 0.1]], dtype=torch.float64).log()
    spread = {}
    for name in ("fault", "ours"):
        scores = start.clone().requires_grad_()
        for _ in range(200):
            shares = scores.softmax(1)
            loss = attention_entropy(shares) if name == "ours" else -(shares * shares.log()).sum(1)
            (gradient,) = torch.autograd.grad(loss.sum(), scores)
            scores = (scores - gradient).detach().requires_grad_()
        spread[name] = scores.softmax(1).amax().item()
    assert spread["fault"] > 0.99
    assert spread["ours"] < 0.3


def test_entropy_over_tokens_does_not_see_that_one_place_has_all_attention() -> None:
    # Tokens 1 and 2 share each place's attention in the same way; place 0 alone gives any to the label, token 2.
    maps = torch.tensor([[[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]])
    over_tokens = torch.special.entr(maps).sum(2)
    assert over_tokens.unique().numel() == 1
    assert attention_entropy(label_map(maps, torch.tensor([[False, False, True]]))).item() == pytest.approx(1, abs=1e-3)


def test_variance_is_that_of_the_reference() -> None:
    maps = torch.rand(2, 9, 5, dtype=torch.float64)
    tokens = torch.tensor([[False, True, True, False, False], [True, False, True, False, True]])
    expected = torch.stack([maps[0][:, [1, 2]].var(), maps[1][:, [0, 2, 4]].var()])
    torch.testing.assert_close(attention_variance(maps, tokens), expected)


def test_terms_are_the_formulas_on_one_grid() -> None:
    label = torch.tensor([[False, True, True]]).expand(2, 3)
    steps = [{FINE: torch.rand(2, 64, 3).softmax(2), COARSE: torch.rand(2, 16, 3).softmax(2)} for _ in range(2)]
    candidate = candidate_with(*steps, label=label)
    layers = {FINE: 3.0, COARSE: 1.0}
    maps = sum(
        weight / 8 * torch.stack([resized_map(step[layer][..., token], 4) for token in range(3)], 2)
        for step in steps
        for layer, weight in layers.items()
    )
    assert isinstance(maps, torch.Tensor)
    summed = label_map(maps, label)
    torch.testing.assert_close(
        AttentionVariance(side=4, joint=True, layers=layers)(candidate), attention_variance(maps, label)
    )
    torch.testing.assert_close(AttentionVariance(side=4, layers=layers)(candidate), summed.var(1))
    torch.testing.assert_close(AttentionEntropy(side=4, layers=layers)(candidate), attention_entropy(summed))


def test_refusals() -> None:
    for term in (AttentionVariance, AttentionEntropy):
        for layers, message in (
            ({SELF: 1.0}, "be cross-attention for this term"),
            ({FINE: -1.0}, "be a finite number of at least 0"),
            ({FINE: 0.0}, "count for something"),
        ):
            with pytest.raises(InvalidSetting, match=message):
                term(layers=layers)
        with pytest.raises(InvalidSetting, match="`side` should be at least 2"):
            term(side=1)
        label = torch.tensor([[True]])
        empty = candidate_with(label=label)
        for candidate, message in (
            (empty, "at least one recorded step. Found 0. Widen the window"),
            (candidate_with({SELF: torch.ones(1, 4, 4)}, label=label), "maps of at least one cross-attention layer"),
            (candidate_with({FINE: torch.ones(1, 4, 1)}, {}, label=label), "hold up_blocks.1.attn2 at every step"),
        ):
            with pytest.raises(InvalidSetting, match=message):
                term()(candidate)
    with pytest.raises(InvalidSetting, match="at least two places"):
        attention_entropy(torch.ones(1, 1))
