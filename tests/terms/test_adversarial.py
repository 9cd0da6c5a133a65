import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from scipy.spatial.distance import jensenshannon
from torch import Tensor
from torch.nn import functional as F

from diffaudit.errors import InvalidSetting
from diffaudit.terms.adversarial import (
    distribution_distance,
    dlr,
    fooling_margin,
    goal_cross_entropy,
    goal_dlr,
    goal_margin,
    negated_cross_entropy,
    peaked_goal,
    uniform_goal,
)

CLASSES = 6
GOAL = torch.tensor([0.5, 0.2, 0.1, 0.1, 0.1, 0.0], dtype=torch.float64)

Loss = Callable[[Tensor, Tensor], Tensor]


def toward_the_next(logits: Tensor, labels: Tensor) -> Tensor:
    return goal_dlr(logits, labels, (labels + 1) % CLASSES)


def toward_goal(kind: str) -> Loss:
    return lambda logits, _: distribution_distance(logits, GOAL, kind=kind)  # type: ignore[arg-type]


CASES: dict[str, tuple[Loss, float, float]] = {
    "ce": (negated_cross_entropy, -math.inf, 0.0),
    "ce, targeted": (goal_cross_entropy, 0.0, math.inf),
    "margin": (partial(fooling_margin, kappa=30.0), 0.0, math.inf),
    "margin, targeted": (partial(goal_margin, kappa=30.0), 0.0, math.inf),
    "dlr": (dlr, -math.inf, 1.0),
    "dlr, targeted": (toward_the_next, -math.inf, math.inf),
    "js": (toward_goal("js"), 0.0, math.log(2)),
    "distribution ce": (toward_goal("ce"), float(torch.special.entr(GOAL).sum()), math.inf),
}
every_loss = pytest.mark.parametrize(("loss", "least", "most"), CASES.values(), ids=CASES.keys())


def draw(rows: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 4 * torch.randn(rows, CLASSES, generator=generator, dtype=torch.float64)
    return logits, torch.randint(CLASSES, (rows,), generator=generator)


@every_loss
def test_one_value_per_image_within_the_range(loss: Loss, least: float, most: float) -> None:
    for seed in range(5):
        values = loss(*draw(50, seed))
        assert values.shape == (50,)
        assert values.isfinite().all()
        assert (values >= least - 1e-12).all()
        assert (values <= most + 1e-12).all()


@every_loss
def test_a_row_and_its_gradient_depend_on_its_image_alone(loss: Loss, least: float, most: float) -> None:
    logits, labels = draw()
    alone = torch.cat([loss(logits[row : row + 1], labels[row : row + 1]) for row in range(4)])
    torch.testing.assert_close(loss(logits, labels), alone)
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(logits, labels)[0], logits)
    assert gradient[0].abs().max() > 0
    assert not gradient[1:].any()


@every_loss
def test_gradient_is_that_of_the_value(loss: Loss, least: float, most: float) -> None:
    logits, labels = draw()
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), logits.requires_grad_())


@every_loss
def test_descent_lowers_the_true_class_or_raises_the_goal(loss: Loss, least: float, most: float) -> None:
    logits, labels = draw(40)
    after = logits.requires_grad_() - 1e-4 * torch.autograd.grad(loss(logits, labels).sum(), logits)[0]
    assert (loss(after, labels) <= loss(logits, labels)).all()
    assert loss(after, labels).sum() < loss(logits, labels).sum()


def test_cross_entropies_are_those_of_torch() -> None:
    logits, labels = draw(20)
    expected = F.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(goal_cross_entropy(logits, labels), expected)
    torch.testing.assert_close(negated_cross_entropy(logits, labels), -expected)


def test_margins_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 3.0], [0.0, -4.0, 7.0], [-1.0, -1.5, -9.0]])
    labels = torch.tensor([1, 0, 0])
    assert fooling_margin(logits, labels).tolist() == [1.0, 0.0, 0.5]
    assert fooling_margin(logits, labels, kappa=2.0).tolist() == [3.0, 0.0, 2.5]
    assert fooling_margin(logits, labels, kappa=10.0).tolist() == [11.0, 3.0, 10.5]
    assert goal_margin(logits, labels, kappa=2.0).tolist() == [1.0, 9.0, 1.5]


def test_both_margins_are_the_multi_class_hinge_of_torch_between_two_classes() -> None:
    logits, labels = torch.randn(50, 2, dtype=torch.float64), torch.randint(2, (50,))
    reference = partial(F.multi_margin_loss, margin=0.7, reduction="none")  # torch divides by the number of classes
    torch.testing.assert_close(fooling_margin(logits, labels, kappa=0.7), 2 * reference(logits, 1 - labels))
    torch.testing.assert_close(goal_margin(logits, labels, kappa=0.7), 2 * reference(logits, labels))


def test_label_multiplied_by_zero_stops_the_attack_on_negative_logits() -> None:
    logits, labels = torch.tensor([[-1.0, -5.0, -7.0]]), torch.tensor([0])
    one_hot = F.one_hot(labels, 3)
    fault = F.relu((one_hot * logits).sum(1) - ((1 - one_hot) * logits).amax(1))
    assert fault.item() == 0  # "fooled", with no gradient left, while the true class leads by 4
    assert logits.argmax(1).equal(labels)
    assert fooling_margin(logits, labels).item() == 4


def test_dlr_by_hand() -> None:
    logits = torch.tensor([[5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, 0.0], [5.0, 3.0, 1.0, -15.0]])
    assert dlr(logits, torch.tensor([0, 1, 3])).tolist() == [0.5, -0.5, -5.0]
    assert goal_dlr(logits[:2], torch.tensor([0, 1]), torch.tensor([3, 2])).tolist() == pytest.approx([10 / 9, 4 / 9])


def test_dlr_knows_no_scale_and_no_shift() -> None:
    logits, labels = draw(20)
    torch.testing.assert_close(dlr(1e4 * logits - 7, labels), dlr(logits, labels))
    torch.testing.assert_close(toward_the_next(1e4 * logits - 7, labels), toward_the_next(logits, labels))


def test_dlr_of_equal_logits_is_a_number() -> None:
    logits = torch.zeros(1, 5, requires_grad=True)
    loss = dlr(logits, torch.tensor([2])) + goal_dlr(logits, torch.tensor([2]), torch.tensor([0]))
    assert loss.item() == 0
    assert torch.autograd.grad(loss.sum(), logits)[0].isfinite().all()


def test_distances_are_those_of_scipy_and_torch() -> None:
    logits, _ = draw(8)
    goals = torch.rand(8, CLASSES, dtype=torch.float64)
    goals /= goals.sum(1, keepdim=True)
    found = distribution_distance(logits, goals)
    for row in range(8):
        expected = jensenshannon(logits[row].softmax(0).numpy(), goals[row].numpy()) ** 2
        assert found[row].item() == pytest.approx(expected, rel=1e-9)
    torch.testing.assert_close(
        distribution_distance(logits, goals, kind="ce"), F.cross_entropy(logits, goals, reduction="none")
    )


@pytest.mark.parametrize("kind", ["js", "ce"])
def test_the_goal_itself_has_the_least_distance(kind: str) -> None:
    goal = torch.tensor([0.6, 0.3, 0.1], dtype=torch.float64)
    at_goal = goal.log()[None].requires_grad_()
    value = distribution_distance(at_goal, goal, kind=kind)  # type: ignore[arg-type]
    assert value.item() == pytest.approx(0.0 if kind == "js" else float(torch.special.entr(goal).sum()), abs=1e-12)
    assert torch.autograd.grad(value.sum(), at_goal)[0].abs().max() < 1e-12


@pytest.mark.parametrize("kind", ["js", "ce"])
def test_probabilities_of_zero_leave_values_and_gradients_finite(kind: str) -> None:
    logits = torch.tensor([[900.0, 0.0, -900.0]], requires_grad=True)
    value = distribution_distance(logits, torch.tensor([0.0, 0.0, 1.0]), kind=kind)  # type: ignore[arg-type]
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), logits)[0].isfinite().all()


def test_goals_by_hand() -> None:
    assert uniform_goal(5).tolist() == pytest.approx([0.2] * 5)
    goal = peaked_goal(torch.tensor([[1, 2], [3, 3]]), 0.9, classes=4)
    torch.testing.assert_close(goal, torch.tensor([[0.05, 0.45, 0.45, 0.05], [0.1 / 3, 0.1 / 3, 0.1 / 3, 0.9]]))
    assert peaked_goal(torch.tensor([[0]]), 1.0, classes=2).tolist() == [[1.0, 0.0]]


LOGITS, LABELS = torch.zeros(2, 4), torch.tensor([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: dlr(torch.zeros(2, 2), LABELS), "`classes` should be at least 3 .* Found 2. Use the margin"),
        (lambda: goal_dlr(torch.zeros(2, 3), LABELS, LABELS), "`classes` should be at least 4 .* Found 3"),
        (lambda: fooling_margin(LOGITS, LABELS, kappa=-1.0), "`kappa` should be a finite number of at least 0"),
        (lambda: goal_margin(LOGITS, LABELS, kappa=math.nan), "`kappa` should be a finite number"),
        (lambda: negated_cross_entropy(LOGITS, torch.tensor([0])), "`target` should be one integer per image, 2"),
        (lambda: goal_dlr(LOGITS, LABELS, torch.tensor([0.0, 1.0])), "`target` should be one integer per image"),
        (lambda: distribution_distance(LOGITS, uniform_goal(3)), r"`goal` should have shape \(2, 4\) or \(4,\)"),
        (lambda: distribution_distance(LOGITS, torch.ones(4)), "`goal` should hold probabilities that sum to 1"),
        (lambda: uniform_goal(1), "`classes` should be at least 2"),
        (lambda: peaked_goal(torch.tensor([[0, 1]]), 0.8, classes=2), "`distractors` should be integers"),
        (lambda: peaked_goal(torch.tensor([0]), 0.8, classes=2), "`distractors` should be integers"),
        (lambda: peaked_goal(torch.tensor([[0]]), 0.0, classes=2), r"`share` should be in \(0, 1\]"),
    ],
)
def test_refusals(call: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        call()
