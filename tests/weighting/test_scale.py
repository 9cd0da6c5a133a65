import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.objective import Entry, Objective
from diffaudit.terms import Term
from diffaudit.weighting import Fixed, Scale, ScaleKind, Staged, StageWeights, next_scale


class Level(Term):
    """Mean of each image."""

    def forward(self, candidate: Candidate) -> Tensor:
        return candidate.image.flatten(1).mean(1)


def candidate_of(*levels: float) -> Candidate:
    image = torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).clone().requires_grad_()
    images = len(levels)
    return Candidate(image=image, source=image, target=torch.zeros(images).long(), logits=torch.zeros(images, 3))


def objective_of(kind: ScaleKind, factor: float = 1.0) -> Objective:
    return Objective([Entry(name="a", group="a", term=Level(), factor=factor, scale=kind)], Fixed({"a": 2.0}))


def scales_after(kind: ScaleKind, magnitudes: list[float]) -> list[float]:
    scale, found = Scale(kind).double(), []
    for magnitude in magnitudes:
        scale(torch.tensor([magnitude, -magnitude], dtype=torch.float64))
        found.append(float(scale.magnitude))
    return found


def test_first_is_the_mean_so_far_and_stops_after_ten() -> None:
    magnitudes = [float(number) for number in range(1, 15)]
    expected = [sum(magnitudes[: number + 1]) / (number + 1) for number in range(10)] + [5.5] * 4
    assert scales_after("first", magnitudes) == pytest.approx(expected)


def test_ema_is_the_corrected_exponential_mean() -> None:
    magnitudes = torch.rand(50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    expected = [
        sum(0.01 * 0.99 ** (number - index) * magnitudes[index] for index in range(number + 1))
        / (1 - 0.99 ** (number + 1))
        for number in range(50)
    ]
    assert scales_after("ema", magnitudes) == pytest.approx(expected)


def test_ema_forgets_and_first_does_not() -> None:
    magnitudes = [100.0] * 10 + [1.0] * 2000
    assert scales_after("ema", magnitudes)[-1] == pytest.approx(1.0, abs=1e-6)
    assert scales_after("first", magnitudes)[-1] == pytest.approx(100.0)


def test_none_is_one_whatever_came() -> None:
    assert scales_after("none", [5.0, 7.0]) == [1.0, 1.0]
    assert next_scale(torch.tensor(3.0), torch.tensor(9.0), torch.tensor(2), "none").item() == 1.0


def test_values_are_divided_by_a_detached_scale() -> None:
    values = torch.tensor([1.0, -3.0], requires_grad=True)
    scaled = Scale("first")(values)
    torch.testing.assert_close(scaled, torch.tensor([0.5, -1.5]))
    scaled.sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize("kind", ["first", "ema"])
def test_a_term_of_any_size_is_of_order_one_from_its_first_step(kind: ScaleKind) -> None:
    for size in (1e-6, 1.0, 1e6):
        assert Scale(kind)(torch.tensor([size, size])).tolist() == pytest.approx([1.0, 1.0])


@pytest.mark.parametrize("kind", ["first", "ema"])
@pytest.mark.parametrize("nothing", [0.0, 1e-9, math.nan, math.inf])
def test_steps_that_say_nothing_do_not_count(kind: ScaleKind, nothing: float) -> None:
    scale = Scale(kind)
    scale(torch.tensor([nothing, nothing]))
    assert (scale.magnitude.item(), scale.count.item()) == (1.0, 0)
    scale(torch.tensor([4.0]))
    for _ in range(20):
        scale(torch.tensor([nothing]))
    assert (scale.magnitude.item(), scale.count.item()) == (4.0, 1)


def test_looking_moves_nothing() -> None:
    scale = Scale("ema")
    with torch.no_grad():
        scale(torch.tensor([4.0]))
    scale.eval()(torch.tensor([4.0]))
    assert scale.count.item() == 0


@pytest.mark.parametrize("kind", ["first", "ema"])
def test_a_stopped_run_goes_on_with_the_same_scale(kind: ScaleKind) -> None:
    magnitudes = torch.rand(30, generator=torch.Generator().manual_seed(1))
    whole, first, second = Scale(kind), Scale(kind), Scale(kind)
    for number, magnitude in enumerate(magnitudes):
        whole(magnitude[None])
        (first if number < 7 else second)(magnitude[None])
        if number == 6:
            second.load_state_dict(first.state_dict())
    assert torch.equal(second.magnitude, whole.magnitude)
    assert set(whole.state_dict()) == {"magnitude", "count"}


def test_two_graphs_at_once_stay_valid() -> None:
    scale, values = Scale("first"), torch.tensor([2.0], requires_grad=True)
    (scale(values) + scale(3 * values)).sum().backward()
    torch.testing.assert_close(values.grad, torch.tensor([1 / 2 + 3 / 4]))


def test_an_unknown_kind_is_refused() -> None:
    unknown: Any = "last"
    with pytest.raises(InvalidSetting, match=r"`scale` should be one of none, first, ema. Found 'last'."):
        Scale(unknown)
    with pytest.raises(InvalidSetting, match=r"`scale` should be one of none, first, ema."):
        objective_of(unknown)


def test_in_an_objective_terms_are_scaled_before_factor_and_weight() -> None:
    objective = objective_of("first", factor=3.0)
    scored = objective(candidate_of(4.0, 8.0), 0)
    assert scored.value.tolist() == pytest.approx([2 * 3 * 4 / 6, 2 * 3 * 8 / 6])
    assert scored.groups["a"].tolist() == pytest.approx([3 * 4 / 6, 3 * 8 / 6])
    assert scored.parts["a"].tolist() == scored.terms["a"].tolist() == [4.0, 8.0]
    assert set(objective.state_dict()) == {"scales.a.magnitude", "scales.a.count"}


def test_without_a_scale_an_objective_is_as_it_was() -> None:
    objective, candidate = objective_of("none", factor=3.0), candidate_of(4.1, 8.3)
    assert torch.equal(objective(candidate, 0).value, 2.0 * (3.0 * Level()(candidate)))
    assert not objective.state_dict()


def test_steps_in_which_a_group_is_watched_do_not_count() -> None:
    weighting = Staged([StageWeights(0, {"a": 0.0}), StageWeights(1, {"a": 1.0})])
    objective = Objective([Entry(name="a", group="a", term=Level(), scale="first")], weighting)
    objective(candidate_of(100.0), 0)
    assert objective(candidate_of(5.0), 1).value.tolist() == [1.0]


@pytest.mark.parametrize("kind", ["first", "ema"])
def test_rows_have_scales_of_their_own(kind: ScaleKind) -> None:
    """Each is the scale that its image would have alone."""
    values = torch.randn(20, 3, generator=torch.Generator().manual_seed(2)) * torch.tensor([0.01, 1.0, 100.0])
    together, alone = Scale(kind, rows=3), [Scale(kind) for _ in range(3)]
    for row in values:
        expected = [one(value[None]) for one, value in zip(alone, row, strict=True)]
        torch.testing.assert_close(together(row), torch.cat(expected))
    assert together.count.tolist() == [20, 20, 20]
    torch.testing.assert_close(together.magnitude, torch.stack([one.magnitude for one in alone]))


def test_a_row_is_worth_what_it_is_whatever_its_mates_are() -> None:
    scale, lonely, batch = Scale("first", rows=2), Scale("first", rows=2), Scale("first")
    for mate in (1e3, 0.0, math.nan):
        scaled = scale(torch.tensor([2.0, mate]))
        assert scaled[0].item() == lonely(torch.tensor([2.0, 5.0]))[0].item() == 1.0
    assert scale.count.tolist() == [3, 1]  # 0 and what is not a number say nothing of the mate
    assert scale.magnitude.tolist() == [2.0, 1000.0]
    assert batch(torch.tensor([2.0, 1e3]))[0].item() == pytest.approx(2 / 501)


def test_rows_are_kept_with_the_run() -> None:
    first, second = Scale("ema", rows=2), Scale("ema", rows=2)
    first(torch.tensor([3.0, 4.0]))
    second.load_state_dict(first.state_dict())
    assert second.magnitude.tolist() == pytest.approx([3.0, 4.0])


def test_in_an_objective_each_image_has_its_scale() -> None:
    entry = Entry(name="a", group="a", term=Level(), scale="first", rows=2)
    objective = Objective([entry], Fixed({"a": 2.0}))
    assert objective(candidate_of(4.0, 8.0), 0).value.tolist() == pytest.approx([2.0, 2.0])
    assert objective(candidate_of(4.0, 4.0), 1).value.tolist() == pytest.approx([2.0, 2 * 4 / 6])
