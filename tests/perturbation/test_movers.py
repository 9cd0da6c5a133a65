from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from diffaudit.perturbation.movers import AdamWMover, MomentumMover, Mover, mover_of
from diffaudit.perturbation.plans import StepPlan

ADAMW = StepPlan("adamw", rate=0.05, decay=0.9, clip=1.0)
MOMENTUM = StepPlan("momentum", rate=0.05, decay=0.5, clip=2.0)


def slope(latents: Tensor) -> Tensor:
    """Of ``sum (z - 1)^4``."""
    return 4 * (latents - 1) ** 3


def walked(mover: Mover, latents: Tensor, steps: int = 5, change: Callable[[Tensor], Tensor] = lambda z: z) -> Tensor:
    for _ in range(steps):
        latents = change(mover(latents, slope(latents)))
    return latents


def start() -> Tensor:
    return torch.randn(3, 4, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_adamw_is_torchs_without_decay() -> None:
    parameter = torch.nn.Parameter(start())
    optimiser = torch.optim.AdamW([parameter], lr=0.05, weight_decay=0.0)
    for _ in range(5):
        parameter.grad = slope(parameter.detach())
        optimiser.step()
    assert torch.equal(walked(AdamWMover(0.05), start()), parameter.detach())


def test_adamw_goes_on_from_where_it_was_put() -> None:
    """What lies between the steps, a radius, moves the latents; the moments are of gradients alone."""
    mover, gradient = AdamWMover(0.1), torch.full((1, 1, 1, 1), 3.0)
    mover(torch.zeros(1, 1, 1, 1), gradient)
    # The same gradient twice: mean 3 and mean square 9, so the step is the rate.
    assert mover(torch.full((1, 1, 1, 1), 7.0), gradient).item() == pytest.approx(6.9, abs=1e-6)


def test_momentum_by_hand() -> None:
    mover = MomentumMover(0.1, decay=0.5, clip=2.0)
    one = mover(torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, 4.0]]]]))  # clipped to (1.2, 1.6)
    assert one.flatten().tolist() == pytest.approx([-0.1, -0.1])
    two = mover(one, torch.tensor([[[[-0.7, 0.0]]]]))  # (0.6, 0.8) + (-0.7, 0) = (-0.1, 0.8)
    assert two.flatten().tolist() == pytest.approx([0.0, -0.2])
    three = mover(two, torch.tensor([[[[0.1, -0.5]]]]))  # (-0.05, 0.4) + (0.1, -0.5) = (0.05, -0.1)
    assert three.flatten().tolist() == pytest.approx([-0.1, -0.1])


@pytest.mark.parametrize("plan", [ADAMW, MOMENTUM], ids=lambda plan: plan.kind)
def test_a_picture_walks_without_its_batch_mates(plan: StepPlan) -> None:
    together, mates = walked(mover_of(plan), start()), start()
    for row in range(3):
        alone = walked(mover_of(plan), mates[row : row + 1])
        torch.testing.assert_close(alone, together[row : row + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("plan", [ADAMW, MOMENTUM], ids=lambda plan: plan.kind)
def test_what_goes_in_is_left_as_it_is(plan: StepPlan) -> None:
    mover, latents, gradient = mover_of(plan), start(), slope(start())
    first = mover(latents, gradient)
    kept = first.clone()
    assert not first.requires_grad
    mover(first, gradient)
    assert torch.equal(latents, start())
    assert torch.equal(gradient, slope(start()))
    assert torch.equal(first, kept)


@pytest.mark.parametrize("plan", [ADAMW, MOMENTUM], ids=lambda plan: plan.kind)
def test_a_plan_makes_a_fresh_mover(plan: StepPlan) -> None:
    kinds = {"adamw": AdamWMover, "momentum": MomentumMover}
    one, other = mover_of(plan), mover_of(plan)
    assert type(one) is kinds[plan.kind]
    assert torch.equal(walked(one, start()), walked(other, start()))
    assert (walked(mover_of(plan), start(), 1) < start()).eq(slope(start()) > 0).all()
