from __future__ import annotations

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor

from diffaudit.judging import topk_success


def test_top_one_is_the_largest_logit() -> None:
    logits = torch.randn(50, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 7
    assert torch.equal(topk_success(logits, labels), logits.argmax(dim=1) == labels)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_mean_is_the_reference_accuracy(k: int) -> None:
    logits = torch.randn(200, 7, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 7
    expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=list(range(7)))
    assert topk_success(logits, labels, k=k).double().mean().item() == pytest.approx(expected)


def test_ties_count_against_success() -> None:
    constant = torch.zeros(1, 4)
    assert [topk_success(constant, torch.tensor([0]), k=k).item() for k in (1, 3, 4)] == [False, False, True]


@pytest.mark.parametrize(
    ("logits", "labels", "k", "message"),
    [
        (torch.tensor([[0.0, torch.nan]]), torch.tensor([0]), 1, "`logits` should hold finite numbers. Found 1 "),
        (torch.zeros(2, 4), torch.tensor([0, 4]), 1, "`labels` should lie between 0 and 3, .* Found 0 to 4."),
        (torch.zeros(2, 4), torch.tensor([-1, 0]), 1, "Found -1 to 0."),
        (torch.zeros(2, 4), torch.tensor([0]), 1, "`labels` should be one integer per image, 2 in all."),
        (torch.zeros(1, 4), torch.tensor([0.0]), 1, r"Found shape \(1,\) of torch.float32"),
        (torch.zeros(1, 4), torch.tensor([0]), 5, "`k` should be between 1 and the number of classes, 4. Found 5."),
        (torch.zeros(4), torch.tensor([0]), 1, r"`logits` should be a floating matrix.* Found shape \(4,\)"),
        (torch.zeros(0, 4), torch.zeros(0, dtype=torch.long), 1, "`logits` should hold at least one row."),
    ],
)
def test_refusals(logits: Tensor, labels: Tensor, k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        topk_success(logits, labels, k=k)
