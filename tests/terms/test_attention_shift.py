from dataclasses import replace
from typing import Any

import pytest
import torch

from diffaudit.attention import AttentionBranch, AttentionLayer, AttentionView
from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import (
    AttentionContrast,
    AttentionDrift,
    AttentionReplacement,
    attention_contrast,
    attention_drift,
    attention_replacement,
    label_shares,
)

LAYER = AttentionLayer("up_blocks.1.attn2", "up", "cross")
MAPS = torch.tensor([[[0.6, 0.3, 0.1], [0.6, 0.1, 0.3], [0.8, 0.1, 0.1], [0.2, 0.8, 0.0]]])
OTHER = torch.tensor([[[0.2, 0.2], [0.1, 0.3], [0.3, 0.1], [0.5, 0.5]]])


def view(*steps: torch.Tensor) -> AttentionView:
    branch = AttentionBranch(
        steps=tuple({LAYER: maps} for maps in steps),
        label=torch.tensor([[False, True, False]]),
        rival=torch.tensor([[False, False, True]]),
    )
    distractor = AttentionBranch(
        steps=({LAYER: OTHER},) * len(steps), label=torch.tensor([[True, False]]), rival=torch.tensor([[False, True]])
    )
    return AttentionView(perturbed=branch, clean=branch, distractor=distractor)


def candidate_with(*steps: torch.Tensor, **changes: Any) -> Candidate:
    image = torch.zeros(1, 3, 4, 4)
    base = Candidate(image=image, source=image, target=torch.zeros(1, dtype=torch.long), logits=torch.zeros(1, 2))
    return replace(base, attention=view(*steps), **changes)


def test_contrast_by_hand() -> None:
    shares = torch.tensor([[0.75, 0.25, 0.5, 1.0], [0.0, 0.0, 0.0, 0.5]])
    torch.testing.assert_close(attention_contrast(shares), torch.tensor([0.2 + 0.25, 0.0]))
    mask = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.5]])
    torch.testing.assert_close(attention_contrast(shares, mask, margin=0.6), torch.tensor([0.1, 0.6]))
    assert attention_contrast(shares, torch.zeros(2, 4)).tolist() == [0.0, 0.0]


def test_drift_by_hand() -> None:
    assert attention_drift(torch.rand(2, 1, 5)).tolist() == [0.0, 0.0]
    maps = torch.tensor([[[0.0, 0.0], [0.5, 0.1], [0.5, 0.5]]])
    assert attention_drift(maps).item() == pytest.approx((0.3 + 0.2) / 2)


def test_terms_are_the_formulas() -> None:
    shares, others = label_shares(MAPS[..., 1], MAPS[..., 2]), label_shares(OTHER[..., 0], OTHER[..., 1])
    candidate = candidate_with(MAPS, MAPS)
    torch.testing.assert_close(AttentionContrast(margin=0.5)(candidate), attention_contrast(shares, margin=0.5))
    torch.testing.assert_close(AttentionReplacement()(candidate), attention_replacement(shares, others))
    squares = attention_replacement(shares, others, norm="l2")
    torch.testing.assert_close(AttentionReplacement(norm="l2")(candidate), squares)
    moved = candidate_with(MAPS, MAPS.flip(1))
    torch.testing.assert_close(
        AttentionDrift()(moved), attention_drift(torch.stack([MAPS[..., 1], MAPS.flip(1)[..., 1]], 1))
    )


def test_the_mask_is_brought_to_the_layers_grid() -> None:
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 2:, 2:] = 1.0  # the last of 2 x 2 places
    shares = label_shares(MAPS[..., 1], MAPS[..., 2])
    found = AttentionContrast(margin=0.0)(candidate_with(MAPS, mask=mask))
    torch.testing.assert_close(found, 2 * shares[:, 3] - 1)
    others = label_shares(OTHER[..., 0], OTHER[..., 1])
    found = AttentionReplacement()(candidate_with(MAPS, mask=mask))
    torch.testing.assert_close(found, (shares - others).abs()[:, 3])


def test_the_distractor_branch_gets_no_gradient() -> None:
    candidate = candidate_with(MAPS.clone().requires_grad_())
    assert candidate.attention is not None
    assert candidate.attention.distractor is not None
    other = OTHER.clone().requires_grad_()
    distractor = replace(candidate.attention.distractor, steps=({LAYER: other},))
    AttentionReplacement()(replace(candidate, attention=replace(candidate.attention, distractor=distractor))).backward()
    assert other.grad is None


def test_refusals() -> None:
    candidate = candidate_with(MAPS)
    assert candidate.attention is not None
    bare = replace(candidate.attention.perturbed, rival=None)
    uneven = replace(candidate.attention.perturbed, steps=({LAYER: MAPS},) * 2)
    for term, changed, message in (
        (AttentionContrast(), None, "`attention` should be filled in the candidate"),
        (AttentionContrast(), replace(candidate.attention, perturbed=bare), "`rival` should be known"),
        (AttentionReplacement(), replace(candidate.attention, distractor=None), "`distractor` should be recorded"),
        (AttentionReplacement(), replace(candidate.attention, perturbed=uneven), "the same steps in every branch"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            term(replace(candidate, attention=changed))
    with pytest.raises(InvalidSetting, match=r"`margin` should be in \[0, 1\]"):
        AttentionContrast(margin=1.5)
    with pytest.raises(InvalidSetting, match="`norm` should be l1 or l2"):
        AttentionReplacement(norm="l3")  # type: ignore[arg-type]
    with pytest.raises(InvalidSetting, match="`maps` should hold the label's map at every step"):
        attention_drift(MAPS[0])
