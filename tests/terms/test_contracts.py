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
from diffaudit.terms import (
    BatchTerm,
    FeatureCentre,
    IdentityCosine,
    ParameterTerm,
    Perceptual,
    PriorNoise,
    Regulariser,
    Term,
    TopK,
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


@dataclass(frozen=True)
class Case:
    """How a term is made (from torch's seeded randomness) and which of the candidate's tensors it descends."""

    make: Callable[[], Term]
    reads: tuple[str, ...]

    def __str__(self) -> str:
        return type(self.make()).__name__


CASES = [
    Case(PriorNoise, ("prediction",)),
    Case(TopK, ("logits",)),
    Case(lambda: TopK(k=3), ("logits",)),
    Case(lambda: FeatureCentre(torch.randn(CLASSES, FEATURES)), ("features",)),
    Case(IdentityCosine, ("embedding",)),
    Case(lambda: Perceptual(Convolutions()), ("image",)),
]
every_term = pytest.mark.parametrize("case", CASES, ids=str)


def made(case: Case, seed: int = 0) -> Term:
    torch.manual_seed(seed)
    return case.make().double()


def candidate_of(images: int = 4, seed: int = 0) -> Candidate:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(images, *shape, generator=generator, dtype=torch.float64)

    return Candidate(
        image=draw(3, 8, 8).sigmoid(),
        source=draw(3, 8, 8).sigmoid(),
        target=torch.arange(images) % CLASSES,
        logits=3 * draw(CLASSES),
        features=draw(FEATURES),
        embedding=nn.functional.normalize(draw(7), dim=1),
        anchor=nn.functional.normalize(draw(7), dim=1),
        noise=draw(2, 4, 4),
        prediction=draw(2, 4, 4),
        progress=draw().sigmoid(),
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
    assert exported == {type(case.make()) for case in CASES} | {Regulariser}


@every_term
def test_one_value_per_image_above_the_bound(case: Case) -> None:
    term = made(case)
    assert term.lower_bound in (0.0, float("-inf"))
    for seed in range(5):
        values = term(candidate_of(seed=seed))
        assert values.shape == (4,)
        assert values.isfinite().all()
        assert (values >= term.lower_bound).all()


@every_term
def test_a_row_depends_on_its_image_alone(case: Case) -> None:
    term, candidate = made(case), candidate_of()
    rows = [torch.tensor([row]) for row in range(4)]
    alone = torch.cat([term(mapped(candidate, partial(torch.index_select, dim=0, index=row))) for row in rows])
    torch.testing.assert_close(term(candidate), alone)


@every_term
def test_a_gradient_stays_in_its_row(case: Case) -> None:
    candidate = candidate_of()
    leaves = [getattr(candidate, name).requires_grad_() for name in case.reads]
    for gradient in torch.autograd.grad(made(case)(candidate)[0], leaves):
        assert gradient[0].abs().max() > 0
        assert gradient[1:].abs().max() == 0


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
