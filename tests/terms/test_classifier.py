import math

import pytest
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import FeatureCentre, TopK, feature_distance, topk_margin


def candidate_with(logits: Tensor, target: Tensor, features: Tensor | None = None) -> Candidate:
    image = torch.zeros(len(logits), 3, 4, 4)
    return Candidate(image=image, source=image, target=target, logits=logits, features=features)


@pytest.mark.parametrize(("k", "expected"), [(1, [3.0, -1.0]), (2, [2.5, -3.0]), (3, [1.0, -4.0])])
def test_margin_by_hand(k: int, expected: list[float]) -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0, -1.0], [0.0, -4.0, 1.0, -5.0]])
    assert topk_margin(logits, torch.tensor([0, 2]), k=k).tolist() == expected


def test_all_rivals_give_their_mean() -> None:
    logits = torch.randn(6, 5, dtype=torch.float64)
    target = torch.arange(6) % 5
    own = logits[torch.arange(6), target]
    torch.testing.assert_close(topk_margin(logits, target, k=4), (logits.sum(1) - own) / 4 - own)


def test_label_multiplied_by_zero_would_be_its_own_rival() -> None:
    logits, target = torch.tensor([[-1.0, -2.0, -3.0]]), torch.tensor([0])
    others = 1 - torch.nn.functional.one_hot(target, 3)
    fault = (logits * others).max(1).values - logits[:, 0]
    assert fault.tolist() == [1.0]
    assert topk_margin(logits, target).tolist() == [-1.0]


def test_gradient_goes_to_the_label_and_its_rivals() -> None:
    logits = torch.tensor([[-3.0, -1.0, -2.0, -9.0]], requires_grad=True)
    topk_margin(logits, torch.tensor([0]), k=2).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[-1.0, 0.5, 0.5, 0.0]]


def test_margin_has_no_lower_bound() -> None:
    assert TopK.lower_bound == -math.inf
    assert topk_margin(torch.tensor([[1e6, -1e6]]), torch.tensor([0])).tolist() == [-2e6]


def test_adding_to_all_logits_changes_nothing() -> None:
    logits, target = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    torch.testing.assert_close(topk_margin(logits + 7, target, k=2), topk_margin(logits, target, k=2))


@pytest.mark.parametrize("k", [1, 3])
def test_margin_term_is_the_formula(k: int) -> None:
    logits, target = torch.randn(4, 5), torch.tensor([4, 0, 1, 1])
    assert torch.equal(TopK(k=k)(candidate_with(logits, target)), topk_margin(logits, target, k=k))


@pytest.mark.parametrize(
    ("logits", "target", "k", "message"),
    [
        (torch.zeros(2, 4), torch.tensor([0, 1]), 4, r"`k` should be an integer in \[1, 3\].* Found 4."),
        (torch.zeros(2, 4), torch.tensor([0, 1]), 0, "Found 0."),
        (torch.zeros(2, 1), torch.tensor([0, 0]), 1, r"`k` should be an integer in \[1, 0\]"),
        (torch.zeros(2, 4), torch.tensor([0]), 1, "`target` should be one integer per image, 2 in all."),
        (torch.zeros(2, 4), torch.tensor([0.0, 1.0]), 1, "`target` should be .* Found .*float32"),
        (torch.zeros(4), torch.tensor([0]), 1, "`logits` should be a floating matrix"),
    ],
)
def test_margin_refusals(logits: Tensor, target: Tensor, k: int, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        topk_margin(logits, target, k=k)


def test_k_is_refused_before_any_work() -> None:
    with pytest.raises(InvalidSetting, match=r"`k` should be a positive integer. Found -1. Leave it out"):
        TopK(k=-1)


def test_distance_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 2.0]])
    centres = torch.tensor([[1.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    assert feature_distance(features, centres).tolist() == [5.0, 0.0]


def test_centre_is_the_row_of_the_target() -> None:
    centres = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    candidate = candidate_with(torch.zeros(2, 3), torch.tensor([2, 0]), torch.ones(2, 2))
    assert FeatureCentre(centres)(candidate).tolist() == [4.0, 1.0]
    assert torch.equal(FeatureCentre(centres)(candidate), feature_distance(torch.ones(2, 2), centres[[2, 0]]))


def test_centres_are_state_and_never_learn() -> None:
    given = torch.zeros(3, 2, requires_grad=True)
    term = FeatureCentre(given)
    assert list(term.state_dict()) == ["centres"]
    assert not list(term.parameters())
    features = torch.ones(1, 2, requires_grad=True)
    term(candidate_with(torch.zeros(1, 3), torch.tensor([1]), features)).sum().backward()
    assert given.grad is None
    assert features.grad is not None


def test_centres_are_a_copy() -> None:
    given = torch.zeros(3, 2)
    term = FeatureCentre(given)
    given.fill_(9)
    assert term.centres.max() == 0


@pytest.mark.parametrize(
    ("centres", "features", "message"),
    [
        (torch.zeros(3, 2), None, "`features` should be filled .* Found None. The target classifier shows no penult"),
        (torch.zeros(3, 2), torch.zeros(1, 4), r"`features` should have .* Found \(1, 4\)."),
        (torch.zeros(2, 2), torch.zeros(1, 2), "`centres` should have one row per class, 3. Found 2."),
        (torch.zeros(2), torch.zeros(1, 2), "`centres` should be a floating matrix"),
    ],
)
def test_centre_refusals(centres: Tensor, features: Tensor | None, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        FeatureCentre(centres)(candidate_with(torch.zeros(1, 3), torch.tensor([0]), features))
