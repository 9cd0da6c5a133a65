"""What every term promises, checked for every term: a new one joins by its line in CASES."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit import terms
from diffaudit.attention import AttentionBranch, AttentionLayer, AttentionView
from diffaudit.candidate import Candidate
from diffaudit.models.attributes import AttributeEstimator, harmonic_light, low_pass_light
from diffaudit.terms import (
    AngularMargin,
    AttentionContrast,
    AttentionDrift,
    AttentionEntropy,
    AttentionReplacement,
    AttentionVariance,
    Attributes,
    BatchTerm,
    CoarseColour,
    Diversity,
    FeatureCentre,
    Frequency,
    HierarchicalPerceptual,
    IdentityCosine,
    IdentityMargin,
    IdentitySoftMargin,
    LearnedCentre,
    LogitMargin,
    ParameterTerm,
    Perceptual,
    PixelDistance,
    PriorNoise,
    Regulariser,
    SelfAttention,
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
FINE, COARSE = (AttentionLayer(f"up_blocks.{number}.attn2", "up", "cross") for number in (1, 0))
PLACES = AttentionLayer("up_blocks.1.attn1", "up", "self")
PERTURBED = tuple(f"attention.perturbed.steps.{step}." for step in (0, 1))
CROSS = tuple(step + layer.name.replace(".", "/") for step in PERTURBED for layer in (FINE, COARSE))
SELF = tuple(step + PLACES.name.replace(".", "/") for step in PERTURBED)


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
    """How a term is made (from torch's seeded randomness) and which of the tensors it descends, by their paths."""

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
    Case(lambda: TopKSoftplus(margin=5.0), ("logits",)),
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
    Case(lambda: AttentionVariance(side=4), CROSS),
    Case(lambda: AttentionVariance(side=4, joint=True, layers={FINE: 1.0, COARSE: 0.5}), CROSS),
    Case(lambda: AttentionEntropy(side=4), CROSS),
    Case(lambda: AttentionContrast(margin=1.0), CROSS),
    Case(AttentionReplacement, CROSS),
    Case(lambda: AttentionReplacement(norm="l2", layers={COARSE: 2.0}), CROSS[1::2]),
    Case(AttentionDrift, CROSS),
    Case(SelfAttention, SELF),
    Case(lambda: SelfAttention(divergence="kl", layers={PLACES: 2.0}), SELF),
    Case(lambda: SelfAttention(divergence="js"), SELF),
    Case(Frequency, ("image",)),
    Case(partial(Frequency, detail="wavelet"), ("image",)),
    Case(PixelDistance, ("image",)),
    Case(lambda: CoarseColour(grid=2), ("image",)),
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

    def branch(tokens: int) -> AttentionBranch:
        def maps() -> dict[AttentionLayer, Tensor]:
            fine, coarse, places = draw(16, tokens), draw(4, tokens), draw(2, 4, 4)
            return {FINE: fine.softmax(2), COARSE: coarse.softmax(2), PLACES: places.softmax(3)}

        number = torch.arange(tokens).expand(images, tokens)
        return AttentionBranch(steps=(maps(), maps()), label=(number > 0) & (number < 3), rival=number == 4)

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
        attention=AttentionView(perturbed=branch(6), clean=branch(6), distractor=branch(7)),
        mask=draw(1, 4, 4).sigmoid(),
    )


def mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The value with each of its tensors changed, however deep it lies."""
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, tuple):
        return tuple(mapped(part, change) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, change) for key, part in value.items()}
    assert is_dataclass(value)
    assert not isinstance(value, type)
    return replace(value, **{field.name: mapped(getattr(value, field.name), change) for field in fields(value)})


def tensors_of(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(value, lambda tensor: found.append(tensor) or tensor)  # type: ignore[func-returns-value]
    return found


def at(value: Any, path: str) -> Tensor:
    """The tensor at a path as ``attention.perturbed.steps.0.up_blocks/1/attn2``."""
    for part in path.split("."):
        if isinstance(value, tuple):
            value = value[int(part)]
        elif isinstance(value, dict):
            value = next(maps for layer, maps in value.items() if layer.name.replace(".", "/") == part)
        else:
            value = getattr(value, part)
    assert isinstance(value, Tensor)
    return value


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
    leaves = [at(candidate, path).requires_grad_() for path in case.reads]
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
    leaves = [at(candidate, path).requires_grad_() for path in case.reads]
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
    leaves = tuple(at(candidate, path).requires_grad_() for path in case.reads)

    def values(*tensors: Tensor) -> Tensor:
        given = {id(leaf): tensor for leaf, tensor in zip(leaves, tensors, strict=True)}
        result: Tensor = term(mapped(candidate, lambda tensor: given.get(id(tensor), tensor)))
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
    for tensor, expected in zip(tensors_of(candidate), tensors_of(untouched), strict=True):
        assert torch.equal(tensor, expected)
