import math

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.terms import Regulariser, lora_norm, norm_penalty


class Table(nn.Module):
    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self) -> Tensor:
        return self.rows


def test_norm_penalty_by_hand() -> None:
    assert norm_penalty(torch.tensor([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]])).item() == pytest.approx((16 + 1 + 0) / 3)


def test_directions_are_free() -> None:
    unit = nn.functional.normalize(torch.randn(10, 6, dtype=torch.float64), dim=1)
    assert norm_penalty(unit).item() == pytest.approx(0, abs=1e-20)


def test_gradient_moves_the_length_alone() -> None:
    embeddings = torch.tensor([[0.0, 3.0]], requires_grad=True)
    norm_penalty(embeddings).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.tolist() == [[0.0, 4.0]]


def test_embedding_of_zeros_has_a_finite_gradient() -> None:
    embeddings = torch.zeros(2, 3, requires_grad=True)
    norm_penalty(embeddings).backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


def test_lora_norm_by_hand() -> None:
    convolution = torch.full((2, 3, 1, 1), 0.5)
    assert lora_norm([torch.eye(3), torch.tensor([[1.0, 2.0]]), convolution]).item() == 3 + 5 + 1.5
    assert lora_norm([]).item() == 0.0


def test_lora_norm_is_the_frobenius_norm_squared() -> None:
    matrices = [torch.randn(4, 6, dtype=torch.float64), torch.randn(6, 4, dtype=torch.float64)]
    expected = sum(torch.linalg.matrix_norm(matrix).square() for matrix in matrices)
    torch.testing.assert_close(lora_norm(matrices), expected)


def test_term_is_the_formulas() -> None:
    rows, lora = torch.randn(5, 3), [torch.randn(2, 4), torch.randn(4, 2)]
    term = Regulariser(lambda: rows, lora, lora_weight=0.01)
    assert term().shape == ()
    assert term().item() >= term.lower_bound == 0.0
    torch.testing.assert_close(term(), norm_penalty(rows) + 0.01 * lora_norm(lora))


def test_gradient_is_that_of_the_value() -> None:
    leaves = tuple(torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((5, 3), (2, 4), (4, 2)))

    def value(rows: Tensor, down: Tensor, up: Tensor) -> Tensor:
        result: Tensor = Regulariser(lambda: rows, [down, up], lora_weight=0.3)()
        return result

    assert torch.autograd.gradcheck(value, leaves)


@pytest.mark.parametrize("bound", [True, False], ids=["method", "module"])
def test_parameters_are_read_as_they_are_now_and_owned_elsewhere(bound: bool) -> None:
    table, lora = Table(torch.eye(2)), nn.Parameter(torch.zeros(2, 2))
    term = Regulariser(table.forward if bound else table, [lora], lora_weight=1.0)
    assert term().item() == 0.0
    with torch.no_grad():
        table.rows.mul_(2)
        lora.fill_(1)
    assert term().item() == 1.0 + 4.0
    assert not list(term.parameters())
    assert not term.state_dict()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_precision_of_the_parameters(dtype: torch.dtype) -> None:
    table = Table(torch.randn(2, 3)).to(dtype)
    assert Regulariser(table, [torch.ones(2, 2, dtype=dtype)], lora_weight=0.1)().dtype == dtype


@pytest.mark.parametrize("weight", [-0.1, math.nan, math.inf])
def test_weight_is_refused_before_any_work(weight: float) -> None:
    with pytest.raises(InvalidSetting, match=r"`lora_weight` should be a finite number of at least 0. Found"):
        Regulariser(lambda: torch.eye(2), [], lora_weight=weight)


@pytest.mark.parametrize("embeddings", [torch.zeros(3), torch.zeros(0, 3)])
def test_embeddings_must_be_rows(embeddings: Tensor) -> None:
    with pytest.raises(InvalidSetting, match="`embeddings` should be a floating matrix with at least one row"):
        norm_penalty(embeddings)
