import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import AngularMargin, LogitMargin, angular_hinge, logit_hinge


def candidate_with(logits: Tensor, target: Tensor) -> Candidate:
    image = torch.zeros(len(logits), 3, 4, 4)
    return Candidate(image=image, source=image, target=target, logits=logits)


@pytest.mark.parametrize(("margin", "expected"), [(0.0, [3.0, 0.0, 0.0]), (1.0, [4.0, 0.0, 0.5])])
def test_logits_by_hand(margin: float, expected: list[float]) -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0], [0.0, -4.0, 7.0], [-1.0, -1.5, -9.0]])
    assert logit_hinge(logits, torch.tensor([0, 2, 0]), margin=margin).tolist() == expected


def test_logits_against_the_reference_of_torch() -> None:
    # With two classes the multi-class hinge has one rival; torch divides by the number of classes.
    logits, target = torch.randn(50, 2, dtype=torch.float64), torch.randint(2, (50,))
    expected = 2 * torch.nn.functional.multi_margin_loss(logits, target, margin=0.7, reduction="none")
    torch.testing.assert_close(logit_hinge(logits, target, margin=0.7), expected)


def test_a_lead_beyond_the_margin_leaves_no_gradient() -> None:
    logits = torch.tensor([[3.0, 1.0], [1.5, 1.0]], requires_grad=True)
    logit_hinge(logits, torch.tensor([0, 0])).sum().backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[0.0, 0.0], [-1.0, 1.0]]


@pytest.mark.parametrize(
    ("own", "rival", "margin"), [(0.3, 1.0, 0.5), (1.0, 0.3, 0.5), (2.0, 1.0, 0.2), (1.0, 1.0, 0.0), (0.0, 0.4, 0.5)]
)
def test_angles_by_hand(own: float, rival: float, margin: float) -> None:
    cosines = torch.tensor([[math.cos(own), math.cos(rival), -1.0]], dtype=torch.float64)
    expected = max(0.0, math.cos(rival) - math.cos(own + margin))
    found = angular_hinge(cosines, torch.tensor([0]), margin=margin)
    assert found.item() == pytest.approx(expected, abs=2e-6)


def test_without_a_margin_both_forms_agree() -> None:
    cosines, target = 2 * torch.rand(40, 6, dtype=torch.float64) - 1, torch.randint(6, (40,))
    torch.testing.assert_close(
        angular_hinge(cosines, target, margin=0.0), logit_hinge(cosines, target, margin=0.0), rtol=0, atol=1e-9
    )


def test_the_cosine_of_the_shifted_angle_alone_pushes_away_from_a_class_far_off() -> None:
    angle, margin = torch.tensor(3.0, dtype=torch.float64, requires_grad=True), 0.5  # beyond pi - m
    rival = torch.tensor(0.2, dtype=torch.float64)
    (fault,) = torch.autograd.grad(rival - (angle + margin).cos(), angle)
    assert fault < 0  # descent makes the angle larger
    cosines = torch.stack([angle.cos(), rival])[None]
    (ours,) = torch.autograd.grad(angular_hinge(cosines, torch.tensor([0]), margin=margin).sum(), angle)
    assert ours > 0


def test_falls_with_the_angle_everywhere_without_a_jump() -> None:
    angles = torch.linspace(0, math.pi, 20001, dtype=torch.float64)
    cosines = torch.stack([angles.cos(), torch.ones_like(angles)], dim=1)
    values = angular_hinge(cosines, torch.zeros(20001, dtype=torch.long), margin=0.5)
    assert (values.diff() >= 0).all()
    assert values.diff().max() < 2 * math.pi / 20000
    assert values[-1].item() == pytest.approx(3 - math.cos(0.5))


def test_a_perfect_image_has_a_gradient_that_is_a_number() -> None:
    cosines = torch.tensor([[1.0, 0.0], [1.0, 1.0], [-1.0, 0.5]], requires_grad=True)
    angular_hinge(cosines, torch.tensor([0, 0, 0])).sum().backward()
    assert cosines.grad is not None
    assert cosines.grad.isfinite().all()
    assert cosines.grad[0].tolist() == [0.0, 0.0]


def test_terms_are_the_formulas() -> None:
    cosines, target = 2 * torch.rand(4, 5) - 1, torch.tensor([4, 0, 1, 1])
    candidate = candidate_with(64 * cosines, target)
    assert torch.equal(LogitMargin(margin=3.0)(candidate), logit_hinge(64 * cosines, target, margin=3.0))
    found = AngularMargin(scale=64, margin=0.3)(candidate)
    torch.testing.assert_close(found, angular_hinge(cosines, target, margin=0.3))


def test_logits_that_are_no_cosines_are_refused_with_a_way_out() -> None:
    with pytest.raises(
        InvalidSetting, match=r"`cosines` should lie in \[-1, 1\]. Found 12.* take the margin on logits"
    ):
        AngularMargin(scale=1.0)(candidate_with(torch.tensor([[12.0, 1.0]]), torch.tensor([0])))


@pytest.mark.parametrize(
    ("term", "arguments", "message"),
    [
        (LogitMargin, {"margin": -1.0}, "`margin` should be a finite number of at least 0. Found -1.0."),
        (LogitMargin, {"margin": math.nan}, "`margin` should be a finite number"),
        (AngularMargin, {"scale": 64.0, "margin": 28.6}, r"`margin` should be an angle in radians, in \[0, pi\]"),
        (AngularMargin, {"scale": 0.0}, "`scale` should be a finite number above 0. Found 0.0."),
    ],
)
def test_refusals_before_any_work(term: Any, arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        term(**arguments)
