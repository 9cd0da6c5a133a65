"""Looks at a step: by hand, and without a trace in what is trained."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting, NotFinite
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import TableEmbedding
from diffaudit.inversion.health import (
    cosine_range,
    gradient_cosines,
    health_point,
    norm_error,
    require_finite,
    satisfied_share,
    term_gradients,
)
from diffaudit.inversion.plans import ImagePlan, StagePlan
from diffaudit.inversion.state import TrainingState, stage_optimiser
from diffaudit.inversion.training import train_stage
from diffaudit.objective import Entry, Objective, Scored
from diffaudit.records import HealthPoint
from diffaudit.terms import (
    AngularMargin,
    IdentityCosine,
    IdentityMargin,
    IdentitySoftMargin,
    LearnedCentre,
    LogitMargin,
    Term,
    TopKSoftplus,
)
from diffaudit.weighting import Fixed, Uncertainty, Weighting

SOUGHT = torch.tensor([0, 2])


class Level(Term):
    """Mean of each image times ``scale``, or what is left of it above ``above``."""

    lower_bound = 0.0
    hinge = True

    def __init__(self, scale: float = 1.0, above: float = 0.0) -> None:
        super().__init__()
        self.scale, self.above = scale, above

    def forward(self, candidate: Candidate) -> Tensor:
        return (self.scale * candidate.image.flatten(1).mean(1) - self.above).relu()


def looked_at(weighting: Weighting, *terms: Term, levels: Tensor, **more: Any) -> tuple[Candidate, Scored, Objective]:
    image = levels[:, None, None, None].expand(-1, 3, 4, 4)
    images = len(levels)
    plain = Candidate(image=image, source=image, target=torch.zeros(images).long(), logits=torch.zeros(images, 3))
    candidate = replace(plain, **more)
    names = ["cls", "id", "perc"]
    entries = [Entry(name=name, group=name, term=term) for name, term in zip(names, terms, strict=False)]
    objective = Objective(entries, weighting)
    return candidate, objective(candidate, 0), objective


def test_lengths_from_one() -> None:
    assert norm_error(torch.eye(3)) == 0.0
    assert norm_error(torch.tensor([[[0.0, 1.0], [1.5, 2.0]]])) == pytest.approx(1.5)
    assert norm_error(torch.zeros(1, 4)) == 1.0
    assert math.isnan(norm_error(torch.tensor([[math.nan, 1.0]])))


def test_unit_vectors_in_single_precision_are_within_the_tolerance() -> None:
    vectors = nn.functional.normalize(torch.randn(500, 512, generator=torch.Generator().manual_seed(0)), dim=1)
    assert norm_error(vectors) < 1e-5


def test_range_of_cosines_is_each_images_own() -> None:
    vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    anchors = torch.tensor([[0.6, 0.8], [0.6, 0.8]])
    assert cosine_range(vectors, anchors) == pytest.approx((0.6, 0.8))
    negatives = torch.tensor([[[-1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [0.6, 0.8]]])
    assert cosine_range(vectors, negatives) == pytest.approx((-1.0, 0.8))


def test_range_shows_what_is_not_unit() -> None:
    assert cosine_range(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])) == (2.0, 2.0)


@pytest.mark.parametrize("shape", [(3, 2), (2, 3), (2, 0, 2), (3, 5, 2), (2,)])
def test_range_of_other_shapes_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidSetting, match=r"`others` should hold vectors for each of \(2, 2\)."):
        cosine_range(torch.zeros(2, 2), torch.zeros(shape))


def test_satisfied_are_exact_zeros() -> None:
    assert satisfied_share(torch.tensor([0.0, 1e-30, -1.0, 0.0])) == 0.5


def test_gradients_of_terms_by_hand() -> None:
    weight, other = torch.tensor([1.0, -2.0], requires_grad=True), torch.tensor([3.0], requires_grad=True)
    parts = {"square": weight.square(), "cross": weight[0] * other[0], "watched": torch.ones(2)}
    gradients = term_gradients(parts, [weight, other])
    assert {name: gradient.tolist() for name, gradient in gradients.items()} == {
        "square": [1.0, -2.0, 0.0],
        "cross": [3.0, 0.0, 1.0],
    }
    assert weight.grad is None
    parts["square"].sum().backward()
    assert term_gradients({"watched": torch.ones(2)}, [weight]) == {}


def test_cosines_of_gradients_by_hand() -> None:
    gradients = {"a": torch.tensor([2.0, 0.0]), "b": torch.tensor([3.0, 4.0]), "c": torch.tensor([-1.0, 0.0])}
    found = gradient_cosines(gradients)
    assert found["a"] == pytest.approx({"b": 0.6, "c": -1.0})
    assert found["b"] == pytest.approx({"c": -0.6})
    assert list(found) == ["a", "b"]


@pytest.mark.parametrize("entry", [0.0, math.nan, math.inf])
def test_a_cosine_that_is_not_defined_is_none(entry: float) -> None:
    assert gradient_cosines({"a": torch.tensor([entry]), "b": torch.ones(1)}) == {"a": {"b": None}}


def test_the_term_that_is_not_finite_is_named() -> None:
    parts = {"cls": torch.ones(2), "id": torch.tensor([0.0, math.nan]), "perc": torch.tensor([math.inf, 0.0])}
    with pytest.raises(NotFinite, match=r"`id`, `perc` should be finite. Found NaN or infinity at step 7.") as caught:
        require_finite("value", torch.tensor([math.nan, 1.0]), parts, step=7)
    assert (caught.value.names, caught.value.step) == (("id", "perc"), 7)


def test_without_a_broken_part_the_value_itself_is_named() -> None:
    with pytest.raises(NotFinite, match=r"`gradient` should be finite."):
        require_finite("gradient", torch.tensor(math.inf), {"cls": torch.ones(2)}, step=0)


def test_a_watched_term_may_be_nan() -> None:
    require_finite("value", torch.ones(2), {"watched": torch.tensor([math.nan, 0.0])}, step=0)


def test_a_point_by_hand() -> None:
    levels = torch.tensor([0.5, 2.0], requires_grad=True)
    weighting = Uncertainty(["cls", "id"])
    with torch.no_grad():
        weighting.log_variances["cls"].fill_(4.0)
    embedding, anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    candidate, scored, objective = looked_at(
        weighting,
        Level(),
        Level(3.0, above=3.0),
        levels=levels,
        embedding=embedding,
        anchor=anchor,
        negatives=torch.tensor([[[0.0, 1.0], [7.0, 0.0]], [[0.0, -1.0], [0.6, 0.8]]]),
        negatives_present=torch.tensor([[True, False], [True, True]]),
    )
    point = health_point("embed", 5, candidate, scored, [levels], objective, SOUGHT)
    assert (point.stage, point.step) == ("embed", 5)
    assert point.norm_error == pytest.approx({"embedding": 0.0, "anchor": 0.0, "negatives": 0.0}, abs=1e-7)
    assert point.positives == pytest.approx((0.6, 1.0))
    assert point.negatives == pytest.approx((-1.0, 0.8))
    assert point.gradient_norms == pytest.approx({"cls": math.sqrt(0.5), "id": 1.5})
    assert point.gradient_cosines == {"cls": {"id": pytest.approx(math.sqrt(0.5))}}
    assert point.satisfied == {"cls": 0.0, "id": 0.5}
    assert point.weights == pytest.approx({"cls": math.exp(-4) / 2, "id": 0.5})
    assert point.log_variances == pytest.approx({"cls": 4.0, "id": 0.0})
    assert point.at_clamp == {"cls": 4.0}
    assert point.centre_travel is None
    scored.value.mean().backward()


def test_a_point_without_what_does_not_apply() -> None:
    levels = torch.tensor([0.5, 2.0], requires_grad=True)
    weighting = Fixed({"cls": 1.0, "id": 0.0})
    candidate, scored, objective = looked_at(weighting, Level(), Level(), levels=levels)
    point = health_point("embed", 0, candidate, scored, [levels], objective, SOUGHT)
    assert (point.norm_error, point.positives, point.negatives, point.centre_travel) == ({}, None, None, None)
    assert (point.log_variances, point.at_clamp, point.gradient_cosines) == ({}, {}, {})
    assert list(point.gradient_norms) == ["cls"]
    assert list(point.satisfied) == ["cls", "id"]


def test_negatives_that_are_all_absent_are_not_looked_at() -> None:
    levels, embedding = torch.tensor([0.5, 2.0], requires_grad=True), torch.eye(2)
    absent = {"negatives": torch.zeros(2, 1, 2), "negatives_present": torch.zeros(2, 1, dtype=torch.bool)}
    weighting = Fixed({"cls": 1.0})
    candidate, scored, objective = looked_at(weighting, Level(), levels=levels, embedding=embedding, **absent)
    point = health_point("embed", 0, candidate, scored, [levels], objective, SOUGHT)
    assert point.negatives is None
    assert list(point.norm_error) == ["embedding"]


def test_hinges_alone_are_counted_as_satisfied_and_centres_of_the_classes_sought_travel() -> None:
    """The features are their centre's: a term of exactly 0, which is no hinge. Of the rows 1 is nobody's."""
    levels = torch.tensor([0.5, 2.0], requires_grad=True)
    start = torch.tensor([[10.0, 2.0], [0.0, 0.0], [10.0, -2.0]])
    centre = LearnedCentre(start)
    weighting, features = Fixed({"cls": 1.0, "id": 1.0}), start[:1].expand(2, -1)
    candidate, scored, objective = looked_at(weighting, centre, Level(), levels=levels, features=features)
    assert scored.parts["cls"].tolist() == [0.0, 0.0]
    with torch.no_grad():
        centre.centres[2, 0] += 1
    point = health_point("embed", 0, candidate, scored, [levels], objective, SOUGHT)
    assert list(point.satisfied) == ["id"]
    assert point.centre_travel == pytest.approx(0.5)


def test_which_terms_are_hinges() -> None:
    assert all(term.hinge for term in (AngularMargin, IdentityMargin, IdentitySoftMargin, LogitMargin))
    assert not any(term.hinge for term in (IdentityCosine, LearnedCentre, TopKSoftplus))


class LookedAt(Objective):
    """An objective at which somebody looks in each step, before the backward pass, as a hook of the loop would."""

    parameters_looked_at: tuple[nn.Parameter, ...] = ()
    points: tuple[HealthPoint, ...] = ()

    def forward(self, candidate: Candidate, step: int, shares: Mapping[str, float] | None = None) -> Scored:
        scored: Scored = super().forward(candidate, step, shares)
        point = health_point("embed", step, candidate, scored, self.parameters_looked_at, self, SOUGHT)
        self.points = (*self.points, point)
        return scored


def test_a_training_that_is_looked_at_ends_with_the_same_bits(attacker: Attacker) -> None:
    plan = StagePlan(
        name="embed",
        trains=("embedding",),
        steps=3,
        rates={"embedding": 0.05},
        batch=3,
        first_step=0,
        warmup=0,
        clip=1.0,
        weight_decay=0.0,
    )
    image = ImagePlan(mode="rollout", steps=2, gradient_steps=1, strength=0.9, guidance_scale=1.5)
    ends = []
    for kind in (Objective, LookedAt):
        entries = [
            Entry(name="id", group="id", term=IdentityCosine()),
            Entry(name="level", group="perc", term=Level(), scale="ema"),
        ]
        objective = kind(entries, Fixed({"id": 1.0, "perc": 0.5}))
        state = TrainingState(TableEmbedding(attacker.pseudo_anchors(4)), attacker, objective)
        if isinstance(objective, LookedAt):
            objective.parameters_looked_at = tuple(state.embedding.parameters())
        train_stage(state, plan, image, stage_optimiser(state, plan), state.embedding, seed=0)
        ends.append(state.embedding.raw().detach())
        if isinstance(objective, LookedAt):
            assert [point.step for point in objective.points] == [0, 1, 2]
            assert all(point.gradient_norms["id"] > 0 for point in objective.points)
            assert all(error < 1e-5 for point in objective.points for error in point.norm_error.values())
    assert torch.equal(*ends)
