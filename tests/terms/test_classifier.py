import math

import pytest
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import TopK, TopKSoftplus, adaptive_k, topk_margin, topk_softplus


def candidate_with(logits: Tensor, target: Tensor) -> Candidate:
    image = torch.zeros(len(logits), 3, 4, 4)
    return Candidate(image=image, source=image, target=target, logits=logits)


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


@pytest.mark.parametrize("term", [TopK, TopKSoftplus])
def test_k_is_refused_before_any_work(term: type[TopK] | type[TopKSoftplus]) -> None:
    with pytest.raises(InvalidSetting, match=r"`k` should be a positive integer. Found -1. Leave it out"):
        term(k=-1)


@pytest.mark.parametrize(
    ("classes", "k"), [(2, 1), (3, 2), (10, 2), (59, 2), (60, 3), (79, 3), (80, 4), (100, 5), (119, 5), (1000, 5)]
)
def test_adaptive_k_by_hand(classes: int, k: int) -> None:
    assert adaptive_k(classes) == k


def test_ten_classes_have_two_rivals_by_the_formula_and_one_by_the_texts() -> None:
    assert adaptive_k(10) == 2
    assert adaptive_k(10, k_min=1) == 1
    assert adaptive_k(1000, k_min=1, k_max=20) == 20


def test_adaptive_k_is_never_more_than_there_are_rivals() -> None:
    for classes in range(2, 9):
        k = adaptive_k(classes, k_min=7, k_max=7)
        assert topk_margin(torch.zeros(1, classes), torch.tensor([0]), k=k).tolist() == [0.0]


def test_mean_of_rivals_pushes_every_one_and_the_maximum_only_one() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.9, 1.8, -5.0]], requires_grad=True)
    pushed = []
    for k in (1, 3):
        (gradient,) = torch.autograd.grad(topk_margin(logits, torch.tensor([0]), k=k).sum(), logits)
        pushed.append((gradient[0, 1:] > 0).tolist())
    assert pushed == [[True, False, False, False], [True, True, True, False]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"classes": 1}, "`classes` should be at least 2, for one class has no rival. Found 1."),
        ({"classes": 9, "k_min": 0}, "`k_min` should be a positive integer. Found 0."),
        ({"classes": 9, "k_min": 3, "k_max": 2}, "`k_max` should be at least `k_min`, 3. Found 2."),
    ],
)
def test_adaptive_k_refusals(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        adaptive_k(**arguments)


def test_softplus_by_hand() -> None:
    logits = torch.tensor([[2.0, 2.0], [0.0, math.log(3)], [0.0, -200.0], [0.0, 200.0]])
    found = topk_softplus(logits, torch.tensor([0, 0, 0, 0]))
    torch.testing.assert_close(found, torch.tensor([math.log(2), math.log(4), 0.0, 200.0]))


def test_softplus_fades_past_its_margin() -> None:
    """At a lead of 4 logits the slope is the logistic function at -4, and with a margin of 10 that at 6."""
    logits = torch.tensor([[4.0, 0.0]], dtype=torch.float64, requires_grad=True)
    for margin, slope in ((0.0, 1 / (1 + math.exp(4))), (10.0, 1 / (1 + math.exp(-6)))):
        loss = topk_softplus(logits, torch.tensor([0]), margin=margin)
        assert loss.item() == pytest.approx(math.log1p(math.exp(margin - 4)))
        assert torch.autograd.grad(loss.sum(), logits)[0].tolist() == [[pytest.approx(-slope), pytest.approx(slope)]]
    with pytest.raises(InvalidSetting, match=r"`margin` should be at least 0. Found -1"):
        TopKSoftplus(margin=-1.0)


def test_a_sum_that_learns_its_weights_has_no_minimum_with_a_negative_term() -> None:
    # Kendall's sum L/(2 sigma^2) + log(sigma^2)/2 of a term at -1 falls without end as sigma does; of its softplus not.
    logits, target = torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([0])
    log_variance = torch.linspace(2, -8, 200, dtype=torch.float64)

    def learned_sum(value: Tensor) -> Tensor:
        return value * (-log_variance).exp() / 2 + log_variance / 2

    fault = learned_sum(topk_margin(logits, target))
    assert (fault.diff() < 0).all()
    ours = learned_sum(topk_softplus(logits, target))
    assert 0 < ours.argmin() < 199


def test_softplus_term_is_the_formula() -> None:
    logits, target = torch.randn(4, 5), torch.tensor([4, 0, 1, 1])
    candidate = candidate_with(logits, target)
    assert TopKSoftplus.lower_bound == 0.0
    assert torch.equal(TopKSoftplus(k=3)(candidate), topk_softplus(logits, target, k=3))
    assert torch.equal(TopKSoftplus(k=3)(candidate), torch.nn.functional.softplus(TopK(k=3)(candidate)))
