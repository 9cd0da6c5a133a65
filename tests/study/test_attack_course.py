"""How an attack went: what two batches saw, joined, and the curve of them by hand."""

import pytest
import torch
from torch import Tensor

from diffaudit.perturbation.attack import Iteration
from diffaudit.study.attack_course import course, joined, seen_course


def iteration(number: int, margins: list[list[float]], moving: list[bool], **parts: list[float]) -> Iteration:
    terms = {name: torch.tensor(values) for name, values in parts.items()}
    return Iteration(number, terms, torch.tensor(margins), torch.tensor(moving))


def two_batches() -> dict[str, Tensor]:
    """Three steps, two surrogates. The first batch, of two pictures, ends after two; the second, of one, moves on."""
    first = seen_course(
        [
            iteration(0, [[-1.0, -2.0], [-1.0, 3.0]], [True, True], layout=[0.0, 4.0]),
            iteration(1, [[0.5, -2.0], [-1.0, 3.0]], [True, False], layout=[2.0, 9.0]),
        ],
        torch.tensor([[5.0, -2.0], [6.0, 3.0]]),
        3,
    )
    second = seen_course(
        [iteration(step, [[-4.0], [-4.0]], [True], layout=[torch.inf if step == 2 else 8.0]) for step in range(3)],
        torch.tensor([[-4.0], [1.0]]),
        3,
    )
    return joined([first, second])


def test_what_batches_saw_is_joined_picture_by_picture() -> None:
    seen = two_batches()
    assert seen["margins"].shape == (3, 4, 2)
    assert seen["margins"][0].tolist() == [[-1, -1], [0.5, -1], [5, 6], [5, 6]]  # at its end a batch stands still
    assert seen["moving"].tolist() == [[True, True, False, False], [True] + 3 * [False], 3 * [True] + [False]]
    assert seen["part layout"][0, :2].tolist() == [0.0, 2.0]
    assert seen["part layout"][1].isnan().tolist() == [False, True, True, True]  # what stands still has no term


def test_the_curve_by_hand() -> None:
    """The first surrogate had all three right, the second the first and the last."""
    points = course(two_batches(), {"one": [True, True, True], "two": [True, False, True]})
    assert [point.step for point in points] == [0, 1, 2, 3]
    assert [point.moving for point in points] == pytest.approx([1, 2 / 3, 1 / 3, 0])
    assert [point.fooled["one"] for point in points] == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    assert [point.fooled["two"] for point in points] == pytest.approx([0, 0, 1 / 2, 1])
    # What is not finite is passed over, and a term of nothing that moves has no mean.
    assert [point.parts for point in points] == [{"layout": 4.0}, {"layout": 5.0}, {}, {}]


def test_a_batch_that_ends_before_its_first_step_has_no_terms_and_costs_the_others_none() -> None:
    """As one of a single picture that every surrogate has wrong by enough: nothing is stepped, nothing scored."""
    ended = seen_course([], torch.tensor([[7.0], [7.0]]), 3)
    batches = two_batches()
    for order in ([ended, batches], [batches, ended]):
        seen = joined(order)
        assert seen["part layout"].shape == seen["moving"].shape == (4, 4)
        points = course(seen, {"one": [True] * 4, "two": [True] * 4})
        assert [point.parts for point in points] == [{"layout": 4.0}, {"layout": 5.0}, {}, {}]


def test_a_surrogate_that_had_nothing_right_has_no_curve() -> None:
    points = course(two_batches(), {"one": [False] * 3, "two": [True] * 3})
    assert {point.fooled["one"] for point in points} == {None}
    assert '"fooled": {"one": null, ' in points[0].to_json()
