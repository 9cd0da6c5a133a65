"""What every term promises, checked for every term: a new one joins by its line in CASES."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from diffaudit import terms
from diffaudit.candidate import Candidate
from diffaudit.models.attributes import AttributeEstimator, harmonic_light, low_pass_light
from diffaudit.terms import (
    AngularMargin,
    Attributes,
    BatchTerm,
    Diversity,
    FeatureCentre,
    HierarchicalPerceptual,
    IdentityCosine,
    IdentityMargin,
    IdentitySoftMargin,
    LearnedCentre,
    LogitMargin,
    ParameterTerm,
    Perceptual,
    PriorNoise,
    Regulariser,
    Term,
    TopK,
    TopKSoftplus,
    cosine_weight,
    linear_weight,
    noise_cosine,
    noise_hybrid,
    step_weight,
)

CLASSES, FEATURES = 5, 6


class Convolutions(nn.Module):
    """A frozen extractor with two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3, stride=2)]).requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [images]
        for layer in self.layers:
            maps.append(layer(maps[-1]).tanh())
        return maps[1:]


def attributes() -> AttributeEstimator:
    """A frozen estimator of all attributes, of images 8 x 8."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10), nn.Tanh())
    return AttributeEstimator(network, size=None, spread=torch.full((10,), 0.5))


def light(function: Callable[[Tensor], Tensor], numbers: int) -> AttributeEstimator:
    columns = {"illumination": slice(0, numbers)}
    return AttributeEstimator(function, size=None, spread=torch.full((numbers,), 0.5), columns=columns)


@dataclass(frozen=True)
class Case:
    """How a term is made (from torch's seeded randomness) and which of the candidate's tensors it descends."""

    make: Callable[[], Term | BatchTerm]
    reads: tuple[str, ...]

    def __str__(self) -> str:
        return type(self.make()).__name__


CASES = [
    Case(PriorNoise, ("prediction",)),
    Case(lambda: PriorNoise(noise_cosine, schedule=step_weight), ("prediction",)),
    Case(lambda: PriorNoise(noise_hybrid, schedule=cosine_weight), ("prediction",)),
    Case(lambda: PriorNoise(noise_hybrid, schedule=linear_weight), ("prediction",)),
    Case(TopK, ("logits",)),
    Case(lambda: TopK(k=3), ("logits",)),
    Case(TopKSoftplus, ("logits",)),
    Case(lambda: TopKSoftplus(k=3), ("logits",)),
    Case(lambda: LogitMargin(margin=20.0), ("logits",)),
    Case(lambda: AngularMargin(scale=20.0, margin=1.0), ("logits",)),
    Case(lambda: FeatureCentre(torch.randn(CLASSES, FEATURES)), ("features",)),
    Case(lambda: LearnedCentre(torch.randn(CLASSES, FEATURES)), ("features",)),
    Case(IdentityCosine, ("embedding",)),
    Case(lambda: IdentityMargin(margin=1.5), ("embedding",)),
    Case(lambda: IdentitySoftMargin(margin=1.5, scale=8.0), ("embedding",)),
    Case(lambda: Attributes(attributes()), ("image",)),
    Case(lambda: Attributes(attributes(), distance="l2"), ("image",)),
    Case(lambda: Attributes(light(low_pass_light, 16), {"illumination": 0.2}), ("image",)),
    Case(lambda: Attributes(light(harmonic_light, 9), {"illumination": 0.2}, distance="l2"), ("image",)),
    Case(lambda: Perceptual(Convolutions()), ("image",)),
    Case(lambda: HierarchicalPerceptual(Convolutions(), weights=(0.4, 0.6)), ("image",)),
]
BATCH_CASES = [Case(Diversity, ("embedding",))]
every_independent_term = pytest.mark.parametrize("case", CASES, ids=str)
every_batch_term = pytest.mark.parametrize("case", BATCH_CASES, ids=str)
every_term = pytest.mark.parametrize("case", CASES + BATCH_CASES, ids=str)


def made(case: Case, seed: int = 0) -> Term | BatchTerm:
    torch.manual_seed(seed)
    return case.make().double()


def candidate_of(images: int = 4, seed: int = 0) -> Candidate:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(images, *shape, generator=generator, dtype=torch.float64)

    return Candidate(
        image=draw(3, 8, 8).sigmoid(),
        source=draw(3, 8, 8).sigmoid(),
        target=torch.arange(images) // 2 % CLASSES,  # two of each class: some terms look at these together
        logits=3 * draw(CLASSES),
        features=draw(FEATURES),
        embedding=nn.functional.normalize(draw(7), dim=1),
        anchor=nn.functional.normalize(draw(7), dim=1),
        noise=draw(2, 4, 4),
        prediction=draw(2, 4, 4),
        progress=draw().sigmoid(),
        negatives=nn.functional.normalize(draw(6, 7), dim=2),
        negatives_present=torch.arange(6).expand(images, 6) < 4,
    )


def mapped(candidate: Candidate, change: Callable[[Tensor], Tensor]) -> Candidate:
    tensors = {field.name: getattr(candidate, field.name) for field in fields(candidate)}
    return replace(candidate, **{name: change(tensor) for name, tensor in tensors.items()})


def test_every_exported_term_has_a_case() -> None:
    relatives = (Term, BatchTerm, ParameterTerm)
    exported = {
        value
        for value in vars(terms).values()
        if isinstance(value, type) and issubclass(value, relatives) and not inspect.isabstract(value)
    }
    assert exported == {type(case.make()) for case in CASES + BATCH_CASES} | {Regulariser}


@every_term
def test_one_value_per_image_above_the_bound(case: Case) -> None:
    term = made(case)
    assert term.lower_bound in (0.0, float("-inf"))
    for seed in range(5):
        values = term(candidate_of(seed=seed))
        assert values.shape == (4,)
        assert values.isfinite().all()
        assert (values >= term.lower_bound).all()


@every_independent_term
def test_a_row_depends_on_its_image_alone(case: Case) -> None:
    term, candidate = made(case), candidate_of()
    rows = [torch.tensor([row]) for row in range(4)]
    alone = torch.cat([term(mapped(candidate, partial(torch.index_select, dim=0, index=row))) for row in rows])
    torch.testing.assert_close(term(candidate), alone)


@every_independent_term
def test_a_gradient_stays_in_its_row(case: Case) -> None:
    candidate = candidate_of()
    leaves = [getattr(candidate, name).requires_grad_() for name in case.reads]
    for gradient in torch.autograd.grad(made(case)(candidate)[0], leaves):
        assert gradient[0].abs().max() > 0
        assert gradient[1:].abs().max() == 0


@every_batch_term
def test_a_row_depends_on_its_class_alone(case: Case) -> None:
    term, candidate = made(case), candidate_of()
    values = term(candidate)
    for rows in ([0, 1], [2, 3]):
        alone = term(mapped(candidate, partial(torch.index_select, dim=0, index=torch.tensor(rows))))
        torch.testing.assert_close(values[rows], alone)
        assert values[rows[0]] == values[rows[1]]
    leaves = [getattr(candidate, name).requires_grad_() for name in case.reads]
    for gradient in torch.autograd.grad(term(candidate)[0], leaves):
        assert gradient[:2].abs().amax() > 0
        assert gradient[2:].abs().max() == 0


@every_batch_term
def test_order_of_the_batch_does_not_matter(case: Case) -> None:
    term, candidate, order = made(case), candidate_of(), torch.tensor([3, 0, 2, 1])
    shuffled = mapped(candidate, partial(torch.index_select, dim=0, index=order))
    torch.testing.assert_close(term(shuffled), term(candidate)[order])


@every_term
def test_gradient_is_that_of_the_value(case: Case) -> None:
    term, candidate = made(case), candidate_of()
    leaves = tuple(getattr(candidate, name).requires_grad_() for name in case.reads)

    def values(*tensors: Tensor) -> Tensor:
        result: Tensor = term(replace(candidate, **dict(zip(case.reads, tensors, strict=True))))
        return result

    assert torch.autograd.gradcheck(values, leaves)


@every_term
def test_moves_to_another_precision(case: Case) -> None:
    term, candidate = made(case), candidate_of()
    expected = term(candidate)
    single = mapped(candidate, lambda tensor: tensor.float() if tensor.is_floating_point() else tensor)
    values = term.to(torch.float32)(single)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values.double(), expected, rtol=1e-4, atol=1e-5)


@every_term
def test_state_makes_another_copy_the_same_term(case: Case) -> None:
    term, other = made(case), made(case, seed=1)
    other.load_state_dict(term.state_dict())
    assert torch.equal(other(candidate_of()), term(candidate_of()))


@every_term
def test_leaves_nothing_of_the_candidate_changed(case: Case) -> None:
    candidate, untouched = candidate_of(), candidate_of()
    made(case)(candidate)
    for field in fields(candidate):
        assert torch.equal(getattr(candidate, field.name), getattr(untouched, field.name))
