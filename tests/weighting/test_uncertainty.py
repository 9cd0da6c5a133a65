import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.objective import Entry, Objective
from diffaudit.terms import Term, TopK
from diffaudit.weighting import Uncertainty, require_bounded, uncertainty_loss

LOSSES = {"cls": torch.tensor([1.0, 3.0]), "id": torch.tensor([0.0, 2.0])}


class Level(Term):
    """Mean of each image times ``scale``."""

    lower_bound = 0.0

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, candidate: Candidate) -> Tensor:
        return self.scale * candidate.image.flatten(1).mean(1)


def candidate_of(*levels: float) -> Candidate:
    image = torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).clone()
    images = len(levels)
    return Candidate(image=image, source=image, target=torch.zeros(images).long(), logits=torch.zeros(images, 3))


def descended(loss: Callable[[Tensor], Tensor], *, rate: float = 0.5, steps: int = 500) -> float:
    """Where plain gradient descent on ``s`` ends, from 0, with nothing to hold it."""
    s = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([s], lr=rate)
    for _ in range(steps):
        optimiser.zero_grad()
        loss(s).backward()
        optimiser.step()
    return float(s.detach())


def trained(weighting: Uncertainty, losses: dict[str, Tensor], *, steps: int = 500) -> Uncertainty:
    """The weighting after descent on these losses, brought back after every step as the loop does."""
    optimiser = torch.optim.SGD(weighting.parameters(), lr=0.5)
    for step in range(steps):
        optimiser.zero_grad()
        weighting(losses, step).mean().backward()
        optimiser.step()
        weighting.confine()
    return weighting


def test_formula_by_hand() -> None:
    s = {"cls": torch.tensor(math.log(2.0)), "id": torch.tensor(math.log(0.5))}
    expected = torch.tensor([1.05 / 4 + 0.05, 3.05 / 4 + 2.05]) + (math.log(2) + math.log(0.5)) / 2
    torch.testing.assert_close(uncertainty_loss(LOSSES, s), expected)


def test_formula_is_the_reference_without_delta() -> None:
    scalarization = pytest.importorskip("torchjd.scalarization")
    reference = scalarization.UW(3)
    with torch.no_grad():
        reference.log_var.copy_(torch.tensor([-1.0, 0.3, 2.0]))
    losses = torch.tensor([0.2, 4.0, 1.0])
    names = ["prior", "cls", "id"]
    ours = uncertainty_loss(
        {name: losses[number, None] for number, name in enumerate(names)},
        dict(zip(names, reference.log_var, strict=True)),
        delta=0,
    )
    torch.testing.assert_close(ours[0], reference(losses))


def test_gradient_is_that_of_the_value() -> None:
    def value(one: Tensor, other: Tensor, s: Tensor) -> Tensor:
        return uncertainty_loss({"cls": one, "id": other}, {"cls": s[0], "id": s[1]})

    leaves = [torch.rand(3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(value, (*leaves, torch.randn(2, dtype=torch.float64, requires_grad=True)))


def test_weighting_is_the_formula_plus_the_fixed_groups() -> None:
    weighting = Uncertainty(["id", "cls"], fixed={"reg": 0.2})
    with torch.no_grad():
        weighting.log_variances["cls"].fill_(1.5)
        weighting.log_variances["id"].fill_(-0.5)
    expected = uncertainty_loss(LOSSES, {"cls": torch.tensor(1.5), "id": torch.tensor(-0.5)}) + 0.2 * 7
    torch.testing.assert_close(weighting({"reg": torch.tensor([7.0, 7.0]), **LOSSES}, 0), expected)


@pytest.mark.parametrize("loss", [0.0, 0.001, 0.5, 2.0, 1000.0])
def test_descent_reaches_the_logarithm_of_the_loss(loss: float) -> None:
    weighting = trained(Uncertainty(["cls"]), {"cls": torch.tensor([loss, loss])})
    expected = max(-4.0, min(4.0, math.log(loss + 0.05)))
    assert weighting.logged()["cls"] == pytest.approx(expected, abs=1e-4)
    assert weighting.weights(0)["cls"] == pytest.approx(1 / (2 * math.exp(expected)), rel=1e-4)


def test_what_is_learned_is_the_batchs_mean() -> None:
    weighting = trained(Uncertainty(["cls"], delta=0.0), {"cls": torch.tensor([0.0, 1.0, 5.0])})
    assert weighting.logged()["cls"] == pytest.approx(math.log(2), abs=1e-4)


def test_a_share_of_a_loss_is_undone_by_the_weight_that_learns_on_it() -> None:
    """A tenth of a loss of 2 pulls 0.2 / 0.244 = 82 % as much: with s = log(a L + delta) the slope is a e^{-s} / 2."""
    slopes = []
    for share in (1.0, 0.1):
        loss = torch.tensor([2.0], requires_grad=True)
        best = torch.tensor(share * 2.0 + 0.05).log()
        uncertainty_loss({"cls": share * loss}, {"cls": best}).sum().backward()
        assert loss.grad is not None
        slopes.append(loss.grad.item())
    assert slopes == pytest.approx([1 / 4.1, 0.1 / 0.5])
    assert slopes[1] / slopes[0] == pytest.approx(0.82)


def test_at_its_minimum_it_is_a_geometric_mean() -> None:
    losses = {"cls": torch.tensor([2.0]), "id": torch.tensor([0.3])}
    value = trained(Uncertainty(losses), losses)(losses, 0)
    assert value.item() == pytest.approx(1 + math.log(2.05 * 0.35) / 2, abs=1e-5)


def test_logged_weight_is_the_gradient_of_the_loss() -> None:
    weighting = Uncertainty(["cls", "id"], initial={"cls": 1.7}, fixed={"reg": 0.3})
    leaves = {name: torch.rand(2).requires_grad_() for name in ("cls", "id", "reg")}
    weighting(leaves, 0).sum().backward()
    for name, weight in weighting.weights(0).items():
        gradient = leaves[name].grad
        assert gradient is not None
        torch.testing.assert_close(gradient, torch.full((2,), weight))


def test_initial_weights() -> None:
    weighting = Uncertainty(["cls", "id"], initial={"cls": 2.0})
    assert weighting.weights(0) == pytest.approx({"cls": 2.0, "id": 0.5})
    assert weighting.logged()["cls"] == pytest.approx(-math.log(4))
    assert weighting.logged()["id"] == 0


def test_watched_fixed_group_cannot_poison_the_sum() -> None:
    weighting = Uncertainty(["cls"], fixed={"reg": 0.0})
    assert weighting({"cls": torch.tensor([0.95]), "reg": torch.tensor([math.nan])}, 0).tolist() == [0.5]


def test_the_loss_of_a_group_is_the_sum_of_its_terms() -> None:
    entries = [
        Entry(name="cls_margin", group="cls", term=Level(1.0)),
        Entry(name="cls_feature", group="cls", term=Level(4.0), factor=0.5),
        Entry(name="id", group="id", term=Level(0.1)),
    ]
    scored = Objective(entries, Uncertainty(["cls", "id"]))(candidate_of(1.0, 2.0), 0)
    torch.testing.assert_close(scored.value, torch.tensor([3.05 / 2 + 0.15 / 2, 6.05 / 2 + 0.25 / 2]))


# What circulates, and why not.


def test_sigmas_by_position_shift_when_a_stage_adds_a_term() -> None:
    before, after = ["cls", "id"], ["prior", "cls", "id"]
    first = trained(Uncertainty(before), {"cls": torch.tensor([5.0]), "id": torch.tensor([0.2])})
    by_position = nn.ParameterList(first.log_variances.values())
    learned = first.logged()
    assert {name: float(s.detach()) for name, s in zip(after, by_position, strict=False)} == {
        "prior": learned["cls"],
        "cls": learned["id"],
    }
    second = Uncertainty(after)
    second.load_state_dict(first.state_dict(), strict=False)
    assert second.logged() == {"prior": 0.0, **learned}
    assert set(first.state_dict()) == {"log_variances.cls", "log_variances.id"}


def test_the_short_form_is_twice_ours() -> None:
    loss, s = torch.tensor([0.7], dtype=torch.float64), torch.linspace(-4, 4, 9, dtype=torch.float64)
    ours = torch.cat([uncertainty_loss({"cls": loss}, {"cls": value}, delta=0) for value in s])
    torch.testing.assert_close((-s).exp() * loss + s, 2 * ours)
    assert descended(lambda s: (-s).exp() * 0.7 + s) == pytest.approx(math.log(0.7))


def test_the_form_with_log_sigma_has_another_minimum() -> None:
    assert descended(lambda s: 0.7 / s.exp() + s / 2) == pytest.approx(math.log(2 * 0.7))
    assert descended(lambda s: uncertainty_loss({"a": torch.tensor([0.7])}, {"a": s}, delta=0).sum()) == pytest.approx(
        math.log(0.7)
    )


def test_a_negative_loss_has_no_minimum() -> None:
    values = [
        uncertainty_loss({"cls": torch.tensor([-1.0])}, {"cls": torch.tensor(s)}).item() for s in (0.0, -5.0, -20.0)
    ]
    assert values[0] > values[1] > values[2]
    assert values[2] < -1e8
    assert descended(lambda s: (-s).exp() * -0.1 / 2 + s / 2, rate=0.1, steps=60) < -4


def test_an_unbounded_term_is_refused_where_its_weight_is_learned() -> None:
    entries = [Entry(name="cls_topk", group="cls", term=TopK()), Entry(name="id", group="id", term=Level(1.0))]
    with pytest.raises(
        InvalidSetting,
        match=r"`cls_topk.lower_bound` should be 0, for the weight of its group `cls` is learned. Found -inf. Use .*"
        r"`softplus` of a margin",
    ):
        Objective(entries, Uncertainty(["cls", "id"]))
    Objective(entries, Uncertainty(["id"], fixed={"cls": 1.0}))


def test_bounds_count_in_learned_groups_alone() -> None:
    require_bounded(set(), {"cls_topk": ("cls", -math.inf)})
    require_bounded({"cls"}, {"cls_margin": ("cls", 0.0), "div": ("div", -math.inf)})


def test_a_loss_that_reaches_zero_takes_sigma_with_it() -> None:
    zero = {"cls": torch.zeros(2)}
    assert descended(lambda s: uncertainty_loss(zero, {"cls": s}, delta=0).mean(), steps=400) < -99
    weighting = trained(Uncertainty(["cls"]), zero)
    assert weighting.weights(0)["cls"] == pytest.approx(1 / (2 * 0.05), rel=1e-4)
    assert weighting.at_clamp() == {}


def test_clamped_where_it_is_used_a_sigma_never_comes_back() -> None:
    outside = torch.tensor(-4.5, requires_grad=True)
    uncertainty_loss({"cls": torch.tensor([3.0])}, {"cls": outside.clamp(-4, 4)}).sum().backward()
    assert outside.grad is not None
    assert float(outside.grad) == 0
    weighting = Uncertainty(["cls"])
    with torch.no_grad():
        weighting.log_variances["cls"].fill_(-4.5)
    weighting.confine()
    assert weighting.at_clamp() == {"cls": -4.0}
    trained(weighting, {"cls": torch.tensor([3.0])})
    assert weighting.logged()["cls"] == pytest.approx(math.log(3.05), abs=1e-4)
    assert weighting.at_clamp() == {}


def test_a_weight_at_the_clamp_is_reported() -> None:
    losses = {"big": torch.tensor([1000.0]), "small": torch.tensor([1e-6]), "id": torch.tensor([1.0])}
    assert trained(Uncertainty(losses, delta=0.0), losses).at_clamp() == {"big": 4.0, "small": -4.0}


def test_moves_to_another_precision() -> None:
    weighting = Uncertainty(["cls", "id"], initial={"cls": 1.0}).double()
    assert weighting({name: loss.double() for name, loss in LOSSES.items()}, 0).dtype == torch.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": []}, "`groups` should name at least one group"),
        ({"groups": ["a.b"]}, "`groups` should name at least one group, each by an identifier. Found"),
        ({"initial": {"perc": 1.0}}, r"`initial` should name groups that are learned: cls, id. Found \['perc'\]."),
        ({"initial": {"cls": 0.0}}, r"`initial.cls` should be in \[0.0092, 27.3\]. Found 0.0."),
        ({"initial": {"cls": 30.0}}, "Found 30.0."),
        ({"initial": {"cls": math.nan}}, "Found nan."),
        ({"fixed": {"id": 1.0}}, r"`fixed` should name groups that are not learned. Found \['id'\]."),
        ({"fixed": {"reg": -1.0}}, "`fixed.reg` should be a finite number of at least 0. Found -1.0."),
        ({"delta": -0.1}, "`delta` should be a finite number of at least 0. Found -0.1."),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Uncertainty(**({"groups": ["cls", "id"]} | arguments))


@pytest.mark.parametrize("names", [["cls"], ["cls", "id"], ["cls", "id", "perc"]])
def test_other_names_are_refused(names: list[str]) -> None:
    with pytest.raises(InvalidSetting, match="`weights` should name exactly the groups"):
        Uncertainty(["cls", "id"], fixed={"reg": 1.0})({name: torch.zeros(1) for name in names}, 0)
    with pytest.raises(InvalidSetting, match="`weights` should name exactly the groups"):
        uncertainty_loss({"cls": torch.zeros(1)}, {"id": torch.zeros(())})
