import inspect
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation import adaea, ensemble, improvement
from diffaudit.perturbation.adaea import AdaEA
from diffaudit.perturbation.ensemble import (
    Agreement,
    EnsembleRule,
    Weighted,
    Worst,
    agreement_weights,
    fused,
    image_gradients,
    unit_gradients,
    weighted_gradient,
    worst_weights,
)
from diffaudit.perturbation.improvement import Improvement
from diffaudit.terms.adversarial import fooling_margin, negated_cross_entropy

MODELS, IMAGES = 3, 4


def draw(models: int = MODELS, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients, losses and margins."""
    generator = torch.Generator().manual_seed(seed)
    gradients = torch.randn(models, IMAGES, 3, 5, 5, generator=generator, dtype=torch.float64)
    losses, margins = torch.randn(2, models, IMAGES, generator=generator, dtype=torch.float64)
    return gradients, losses, margins


def vectors(*numbers: list[float]) -> Tensor:
    """One image under each model, its gradient given by three numbers: ``(M, 1, 3, 1, 1)``."""
    return torch.tensor(numbers, dtype=torch.float64)[:, None, :, None, None]


def crossed() -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.rand(MODELS, MODELS, IMAGES, generator=generator, dtype=torch.float64) + 0.5


CASES: dict[str, Callable[[Tensor], EnsembleRule]] = {
    "mean": lambda _: Weighted(),
    "weighted": lambda _: Weighted([1.0, 0.0, 3.0]),
    "worst": lambda _: Worst(),
    "agreement": lambda _: Agreement(),
    "improvement": lambda _: Improvement(),
    "adaea": lambda rows: AdaEA(crossed()[:, :, rows]),
    "adaea as published": lambda rows: AdaEA(crossed()[:, :, rows], as_published=True),
}
every_rule = pytest.mark.parametrize("make", CASES.values(), ids=CASES.keys())
EVERYONE = torch.arange(IMAGES)


def test_every_rule_has_a_case() -> None:
    found = {
        value
        for module in (ensemble, improvement, adaea)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, EnsembleRule) and not inspect.isabstract(value)
    }
    assert found == {type(make(EVERYONE)) for make in CASES.values()}


@every_rule
def test_weights_are_shares(make: Callable[[Tensor], EnsembleRule]) -> None:
    rule = make(EVERYONE)
    for seed in range(3):
        weights, gradient = rule(*draw(seed=seed))
        assert weights.shape == (MODELS, IMAGES)
        assert (weights >= 0).all()
        torch.testing.assert_close(weights.sum(0), torch.ones(IMAGES, dtype=torch.float64))
        assert gradient.shape == (IMAGES, 3, 5, 5)


@every_rule
def test_an_image_depends_on_itself_alone(make: Callable[[Tensor], EnsembleRule]) -> None:
    together, apart = make(EVERYONE), [make(EVERYONE[row : row + 1]) for row in range(IMAGES)]
    for seed in range(3):  # some rules remember
        gradients, losses, margins = draw(seed=seed)
        weights, gradient = together(gradients, losses, margins)
        for row, rule in enumerate(apart):
            only = slice(row, row + 1)
            alone = rule(gradients[:, only], losses[:, only], margins[:, only])
            torch.testing.assert_close(weights[:, only], alone.weights)
            torch.testing.assert_close(gradient[only], alone.gradient)


@every_rule
def test_a_single_model_is_followed(make: Callable[[Tensor], EnsembleRule]) -> None:
    kind = type(make(EVERYONE))
    rule = kind(torch.ones(1, 1, IMAGES)) if kind is AdaEA else kind()
    gradients, losses, margins = draw(1)
    weights, gradient = rule(gradients, losses, margins)
    assert (weights == 1).all()
    torch.testing.assert_close(unit_gradients(gradient), unit_gradients(gradients[0]))


def test_gradients_at_the_image_are_those_of_each_model(surrogates: list[nn.Module], pictures: Tensor) -> None:
    labels = torch.tensor([0, 1, 2, 3])
    gradients, losses = image_gradients(surrogates, pictures, lambda logits: fooling_margin(logits, labels, kappa=9.0))
    for model, gradient, loss in zip(surrogates, gradients, losses, strict=True):
        start = pictures.clone().requires_grad_()
        values = fooling_margin(model(start), labels, kappa=9.0)
        values.sum().backward()
        assert start.grad is not None
        torch.testing.assert_close(gradient, start.grad)
        torch.testing.assert_close(loss, values.detach())
    assert not losses.requires_grad


def test_gradients_at_the_image_go_no_further(surrogates: list[nn.Module], pictures: Tensor) -> None:
    latents = pictures.clone().requires_grad_()
    labels = torch.zeros(4, dtype=torch.long)
    reached: list[Tensor] = []
    image = latents * 2
    image.register_hook(reached.append)
    gradients, _ = image_gradients(surrogates, image, lambda x: negated_cross_entropy(x, labels))
    assert reached == []
    with torch.no_grad():
        again, _ = image_gradients(surrogates, image, lambda x: negated_cross_entropy(x, labels))
    assert torch.equal(again, gradients)
    assert gradients.abs().amax(dim=(1, 2, 3, 4)).gt(0).all()


def test_views_are_averaged_and_the_same_for_every_model(surrogates: list[nn.Module], pictures: Tensor) -> None:
    labels, seen = torch.zeros(4, dtype=torch.long), []

    def loss(logits: Tensor) -> Tensor:
        return negated_cross_entropy(logits, labels)

    def mirrored(image: Tensor) -> Tensor:
        seen.append(image)
        return image.flip(-1)

    gradients, losses = image_gradients(surrogates, pictures, loss, views=[lambda image: image, mirrored])
    plain, plain_losses = image_gradients(surrogates, pictures, loss)
    turned, turned_losses = image_gradients(surrogates, pictures.flip(-1), loss)
    torch.testing.assert_close(gradients, (plain + turned.flip(-1)) / 2)
    torch.testing.assert_close(losses, (plain_losses + turned_losses) / 2)
    assert len(seen) == 3


def test_a_fused_ensemble_is_the_mean_of_the_logits(surrogates: list[nn.Module], pictures: Tensor) -> None:
    """A loss that is linear in the logits cannot tell it from the mean of the losses; cross-entropy can."""
    labels, rule = torch.tensor([0, 1, 2, 3]), Weighted()

    def both(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        apart, losses = image_gradients(surrogates, pictures, loss)
        together, loss_of_mean = image_gradients([fused(surrogates)], pictures, loss)
        return rule(apart, losses, -losses).gradient, rule(together, loss_of_mean, -losses).gradient

    linear = both(lambda logits: logits.gather(1, labels[:, None])[:, 0])
    torch.testing.assert_close(*linear)
    losses, logits = both(lambda logits: negated_cross_entropy(logits, labels))
    start = pictures.clone().requires_grad_()
    mean = torch.stack([model(start) for model in surrogates]).mean(0)
    (expected,) = torch.autograd.grad(negated_cross_entropy(mean, labels).sum(), start)
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(losses, logits, rtol=1e-2)


def test_worst_is_the_gradient_of_the_maximum() -> None:
    start = torch.zeros(1, 3, 1, 1, requires_grad=True)
    losses = torch.stack([2 * start.sum() + 1, 5 * start.sum(), -start.sum()])[:, None]
    gradients = torch.stack([torch.autograd.grad(loss, start, retain_graph=True)[0] for loss in losses[:, 0]])
    (expected,) = torch.autograd.grad(losses.max(), start)
    assert torch.equal(Worst()(gradients, losses.detach(), -losses.detach()).gradient, expected)
    assert worst_weights(torch.tensor([[1.0], [1.0]])).flatten().tolist() == [1.0, 0.0]


def test_given_weights_by_hand() -> None:
    gradients, losses = vectors([1, 0, 0], [0, 1, 0], [0, 0, 1]), torch.zeros(3, 1, dtype=torch.float64)
    assert Weighted([1.0, 0.0, 3.0])(gradients, losses, -losses).gradient.flatten().tolist() == [0.25, 0.0, 0.75]
    assert Weighted()(gradients, losses, -losses).gradient.flatten().tolist() == pytest.approx([1 / 3] * 3)


def test_agreement_by_hand() -> None:
    # Units (1, 0), (1, 0), (0, 1): the mean has length sqrt(5)/3, cosines 2/sqrt(5) and 1/sqrt(5).
    gradients = vectors([2, 0, 0], [0.1, 0, 0], [0, 700, 0])
    near, far = math.exp(7 * 2 / 5**0.5), math.exp(7 / 5**0.5)
    expected = torch.tensor([near, near, far], dtype=torch.float64) / (2 * near + far)
    weights, gradient = Agreement()(gradients, *torch.zeros(2, 3, 1))
    torch.testing.assert_close(weights[:, 0], expected)
    wanted = [2 * near / (2 * near + far), far / (2 * near + far), 0.0]
    assert gradient.flatten().tolist() == pytest.approx(wanted)


def test_agreement_does_not_see_the_length_of_a_gradient() -> None:
    gradients, _, _ = draw()
    scales = torch.tensor([1e-6, 1.0, 1e6], dtype=torch.float64)[:, None, None, None, None]
    torch.testing.assert_close(agreement_weights(scales * gradients), agreement_weights(gradients))


def test_a_model_without_gradient_or_directions_that_cancel_leave_numbers() -> None:
    silent = agreement_weights(vectors([1, 0, 0], [0, 0, 0]), tau=1.0)
    assert silent.flatten().tolist() == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1)])
    assert agreement_weights(vectors([1, 0, 0], [-1, 0, 0])).flatten().tolist() == [0.5, 0.5]


def test_cosine_over_no_dimension_does_not_exist() -> None:
    gradients, _, _ = draw()
    with pytest.raises(TypeError):
        torch.nn.functional.cosine_similarity(gradients[0], gradients[1], dim=None)  # type: ignore[arg-type]


def test_one_cosine_of_the_whole_batch_weighs_an_image_by_its_batch_mates() -> None:
    def fault(gradients: Tensor) -> Tensor:
        units = unit_gradients(gradients).flatten(1)
        return (7 * torch.cosine_similarity(units, units.mean(0, keepdim=True), dim=1)).softmax(0)

    # The first image is clear: two models against one. Its batch-mates are the other way round, and outvote it.
    clear, other = vectors([1, 0, 0], [1, 0, 0], [0, 1, 0]), vectors([1, 0, 0], [0, 1, 0], [0, 1, 0])
    batch = torch.cat([clear, other, other, other], dim=1)
    assert fault(clear)[0] > fault(clear)[2]
    assert fault(batch)[0] < fault(batch)[2]
    torch.testing.assert_close(agreement_weights(batch)[:, :1], agreement_weights(clear))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Weighted([1.0, -1.0]), "`weights` should be finite numbers of at least 0"),
        (lambda: Weighted([0.0, 0.0]), "not all 0"),
        (lambda: Weighted([1.0, math.inf]), "`weights` should be finite numbers"),
        (lambda: Weighted([1.0])(*draw()), "`weights` should be one per model, 3. Found 1"),
        (lambda: Agreement(tau=-1.0), "`tau` should be a finite number of at least 0"),
        (lambda: weighted_gradient(draw()[0], torch.ones(3, 1)), r"`weights` should have one value .*\(3, 4\)"),
        (lambda: image_gradients([], torch.zeros(1, 3, 2, 2), torch.sum), "`models` should hold at least one"),
        (
            lambda: image_gradients([lambda x: x.mean((2, 3))], torch.zeros(2, 3, 2, 2), torch.mean),
            r"`loss` should be one value per image, \(2,\). Found \(\)",
        ),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        call()
