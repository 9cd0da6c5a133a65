import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, MissingExtra, NotFinite
from diffaudit.weighting import JacobianDescent, loss_gradients

AGGREGATORS: dict[str, str] = {
    "upgrad": "UPGrad",
    "dualproj": "DualProj",
    "mgda": "MGDA",
    "imtl_g": "IMTLG",
    "aligned_mtl": "AlignedMTL",
}


NAMES = ["cls", "id"]
THREE = [*NAMES, "perc"]


def linear_losses(jacobian: list[list[float]]) -> tuple[Tensor, Tensor]:
    """Losses whose gradients are these rows, and their parameter."""
    parameter = torch.zeros(len(jacobian[0]), requires_grad=True)
    return torch.tensor(jacobian) @ parameter, parameter


def network_losses() -> tuple[Tensor, nn.Module]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    outputs = network(torch.randn(5, 4))
    return torch.stack([(outputs[:, k] - k).square().mean() for k in range(3)]), network


def test_gradients_by_hand() -> None:
    one, other = torch.tensor([1.0, 2.0], requires_grad=True), torch.tensor([[3.0]], requires_grad=True)
    losses = torch.stack([one.prod(), (one[0] * other).sum()])
    assert loss_gradients(losses, [one, other]).tolist() == [[2.0, 1.0, 0.0], [3.0, 0.0, 1.0]]


def test_what_a_loss_does_not_reach_is_zero() -> None:
    reached, missed = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    losses = [reached.sum(), torch.zeros(())]
    assert loss_gradients(losses, [reached, missed]).tolist() == [[1.0, 0.0], [0.0, 0.0]]


def test_gradients_leave_the_graph_and_nothing_else() -> None:
    losses, network = network_losses()
    gradients = loss_gradients(losses, list(network.parameters()))
    assert all(parameter.grad is None for parameter in network.parameters())
    losses[1].backward()
    found = torch.cat([parameter.grad.flatten() for parameter in network.parameters() if parameter.grad is not None])
    torch.testing.assert_close(found, gradients[1])


@pytest.mark.parametrize(
    ("losses", "parameters", "message"),
    [
        ([], [torch.zeros(1)], "`losses` should be at least one"),
        ([torch.zeros(2)], [torch.zeros(1)], r"each a single number. Found \[\(2,\)\]."),
        ([torch.zeros(())], [], "`parameters` should be at least one."),
    ],
)
def test_gradients_of_nothing_are_refused(losses: Any, parameters: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        loss_gradients(losses, parameters)


def test_two_losses_in_conflict_by_hand() -> None:
    """(1, 0) projected off (-1, 1) is (1/2, 1/2), weights (1, 1/2); (-1, 1) off (1, 0) is (0, 1), weights (1, 1)."""
    pytest.importorskip("torchjd")
    losses, parameter = linear_losses([[1.0, 0.0], [-1.0, 1.0]])
    weights = JacobianDescent()(losses, [parameter], NAMES)
    assert weights.tolist() == pytest.approx([1.0, 0.75], abs=1e-3)
    (direction,) = torch.autograd.grad((weights * losses).sum(), parameter)
    assert direction.tolist() == pytest.approx([0.25, 0.75], abs=1e-3)
    assert (torch.tensor([[1.0, 0.0], [-1.0, 1.0]]) @ direction > 0).all()


def test_equal_weights_would_work_against_a_loss() -> None:
    """Three times (-1, 1) and once (1, 0): the mean of the gradients raises the second loss, UPGrad's step does not."""
    pytest.importorskip("torchjd")
    jacobian = [[-3.0, 3.0], [1.0, 0.0]]
    rows = torch.tensor(jacobian)
    assert (rows @ rows.mean(0))[1] < 0
    losses, parameter = linear_losses(jacobian)
    weights = JacobianDescent()(losses, [parameter], NAMES)
    assert (rows @ (weights @ rows) > -1e-3).all()


def test_a_multiplied_loss_counts_that_much_more() -> None:
    """With the projections (1/2, 1/2) and (0, 1) of above, the first three times: half of (3/2, 3/2) + (0, 1)."""
    pytest.importorskip("torchjd")
    losses, parameter = linear_losses([[3.0, 0.0], [-1.0, 1.0]])
    weights = JacobianDescent()(losses, [parameter], NAMES)
    (direction,) = torch.autograd.grad((weights * losses).sum(), parameter)
    assert direction.tolist() == pytest.approx([0.75, 1.25], abs=2e-3)


def test_losses_that_agree_weigh_the_same() -> None:
    pytest.importorskip("torchjd")
    losses, parameter = linear_losses([[1.0, 0.2], [0.5, 3.0], [0.0, 0.1]])
    assert JacobianDescent()(losses, [parameter], THREE).tolist() == pytest.approx([1 / 3] * 3)


def test_shortest_combination_by_hand() -> None:
    pytest.importorskip("torchjd")
    losses, parameter = linear_losses([[1.0, 0.0], [-1.0, 1.0]])
    assert JacobianDescent("mgda")(losses, [parameter], NAMES).tolist() == pytest.approx([0.6, 0.4], abs=1e-3)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_step_is_that_of_the_reference(name: Any) -> None:
    autojac, aggregation = pytest.importorskip("torchjd.autojac"), pytest.importorskip("torchjd.aggregation")
    losses, network = network_losses()
    parameters = list(network.parameters())
    weights = JacobianDescent(name)(losses, parameters, THREE)
    ours = torch.autograd.grad((weights * losses).sum(), parameters, retain_graph=True)
    autojac.backward(losses, inputs=parameters)
    autojac.jac_to_grad(parameters, getattr(aggregation, AGGREGATORS[name])())
    for gradient, parameter in zip(ours, parameters, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", AGGREGATORS)
def test_the_same_again_and_without_gradient(name: Any) -> None:
    pytest.importorskip("torchjd")
    losses, network = network_losses()
    weigh, parameters = JacobianDescent(name), list(network.parameters())
    weights = weigh(losses, parameters, THREE)
    state = torch.get_rng_state()
    assert torch.equal(weigh(losses, parameters, THREE), weights)
    assert torch.equal(torch.get_rng_state(), state)
    assert not weights.requires_grad
    assert not weigh.state_dict()


def test_gradients_that_are_not_finite_are_refused_by_name() -> None:
    pytest.importorskip("torchjd")
    losses, parameter = linear_losses([[1.0, 0.0], [float("nan"), 1.0]])
    with pytest.raises(NotFinite, match=r"`gradient of id` should be finite."):
        JacobianDescent()(losses, [parameter], NAMES)


def test_values_per_image_are_refused() -> None:
    pytest.importorskip("torchjd")
    with pytest.raises(InvalidSetting, match=r"`losses` should be one batch mean per group, of shape \(K,\). Found"):
        JacobianDescent()(torch.zeros(2, 3), [torch.zeros(1)], NAMES)


def test_losses_without_a_name_each_are_refused() -> None:
    pytest.importorskip("torchjd")
    losses, parameter = linear_losses([[1.0, 0.0], [0.0, 1.0]])
    with pytest.raises(InvalidSetting, match=r"`names` should be one for each of 2 losses. Found \['cls'\]."):
        JacobianDescent()(losses, [parameter], NAMES[:1])


def test_an_unknown_aggregator_is_refused() -> None:
    unknown: Any = "sum"
    with pytest.raises(InvalidSetting, match=r"`aggregator` should be one of upgrad, dualproj, .* Found 'sum'."):
        JacobianDescent(unknown)


def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd.aggregation", None)
    with pytest.raises(MissingExtra, match=r"`torchjd` is not installed. .* \"diffaudit\[torchjd\]\""):
        JacobianDescent()
