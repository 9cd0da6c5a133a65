import math

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.ensemble import Agreement, image_gradients, weighted_gradient
from diffaudit.perturbation.steps import momentum_step, pull_back, sign_step
from diffaudit.terms.adversarial import negated_cross_entropy

LABELS = torch.tensor([0, 1, 2, 3])


class Counter:
    """How often gradients have passed through a module."""

    def __init__(self, module: nn.Module) -> None:
        self.calls = 0
        module.register_full_backward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.calls += 1


def denoised(prior: DiffusionPrior, latents: Tensor) -> Tensor:
    """One step of the diffusion model and the decoder."""
    timesteps = torch.full((4,), 200)
    epsilon = prior.epsilon(latents, timesteps, prior.condition(None, 4))
    return prior.decode(prior.ddim_step(latents, epsilon, timesteps, torch.full((4,), -1)))


def loss(logits: Tensor) -> Tensor:
    return negated_cross_entropy(logits, LABELS)


def test_one_pull_back_is_the_weighted_sum_of_as_many_as_there_are_models(
    prior: DiffusionPrior, surrogates: list[nn.Module]
) -> None:
    counter = Counter(prior.unet)
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(4, 4, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.rand(3, 4, generator=generator, dtype=torch.float64)
    image = denoised(prior, latents)

    gradients, _ = image_gradients(surrogates, image, loss)
    assert counter.calls == 0
    once = pull_back(image, latents, weighted_gradient(gradients, weights), retain_graph=True)
    assert counter.calls == 1

    separate = torch.zeros_like(once)
    for model, share in zip(surrogates, weights, strict=True):
        separate += torch.autograd.grad((share * loss(model(image))).sum(), latents, retain_graph=True)[0]
    assert counter.calls == 1 + len(surrogates)
    torch.testing.assert_close(once, separate, rtol=1e-5, atol=1e-12)
    assert once.abs().amax((1, 2, 3)).gt(0).all()


def test_an_image_is_pulled_back_without_its_batch_mates(prior: DiffusionPrior, surrogates: list[nn.Module]) -> None:
    latents = torch.randn(4, 4, 2, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def step(start: Tensor) -> Tensor:
        start.requires_grad_()
        image = denoised(prior, start)
        gradients, losses = image_gradients(surrogates, image, loss)
        return pull_back(image, start, Agreement()(gradients, losses, -losses).gradient)

    mates = latents.clone()
    mates[1:] += 1
    torch.testing.assert_close(step(latents.clone())[0], step(mates)[0], rtol=1e-9, atol=1e-12)


def test_the_graph_is_kept_only_where_asked() -> None:
    latents = torch.ones(1, 3, 1, 1, requires_grad=True)
    image = latents.square()
    pull_back(image, latents, torch.ones(1, 3, 1, 1), retain_graph=True)
    assert pull_back(image, latents, 3 * torch.ones(1, 3, 1, 1)).flatten().tolist() == [6.0, 6.0, 6.0]
    with pytest.raises(RuntimeError, match="second time"):
        pull_back(image, latents, torch.ones(1, 3, 1, 1))


def test_momentum_by_hand() -> None:
    momentum, gradient = torch.tensor([[3.0, 4.0], [0.3, 0.4]]), torch.tensor([[0.3, 0.4], [0.03, -0.04]])
    found = momentum_step(momentum.view(2, 1, 1, 2), gradient.view(2, 1, 1, 2), clip=2.0).view(2, 2)
    assert found[0].tolist() == pytest.approx([1.2, 1.6])  # (3, 4), of length 5, becomes 2 long
    assert found[1].tolist() == pytest.approx([0.3, 0.32])  # short enough: each image has its own norm


def test_momentum_of_one_direction_grows_to_its_sum() -> None:
    momentum = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for _ in range(300):
        momentum = momentum_step(momentum, torch.ones_like(momentum), decay=0.9, clip=math.inf)
    assert momentum.item() == pytest.approx(10.0)


def test_momentum_of_nothing_is_nothing() -> None:
    assert not momentum_step(torch.zeros(2, 1, 1, 1), torch.zeros(2, 1, 1, 1)).any()


def test_sign_steps_go_along_the_momentum_not_the_gradient() -> None:
    momentum = torch.tensor([1.0, -1.0, 0.0]).view(1, 1, 1, 3)
    gradient = torch.tensor([-0.5, -0.5, 0.0]).view(1, 1, 1, 3)
    grown = momentum_step(momentum, gradient, clip=5.0)
    assert sign_step(torch.zeros(1, 1, 1, 3), grown, size=0.1).flatten().tolist() == pytest.approx([-0.1, 0.1, 0.0])


def test_sign_steps_along_the_momentum_pass_a_gradient_that_swings() -> None:
    """Between steep walls the gradient's sign flips at every step; momentum averages it out."""
    latents, momentum = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    swings = [torch.full((1, 1, 1, 1), value) for value in (-1.0, 0.6) * 10]
    travel = sum(float(sign_step(torch.zeros(1), swing.flatten(), size=1.0)) for swing in swings)
    for swing in swings:
        momentum = momentum_step(momentum, swing, clip=5.0)
        latents = sign_step(latents, momentum, size=1.0)
    assert travel == 0
    assert latents.item() == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"decay": 1.0}, r"`decay` should be in \[0, 1\)"), ({"clip": 0.0}, "`clip` should be above 0")],
)
def test_momentum_refuses(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        momentum_step(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1), **arguments)


def test_a_gradient_of_another_shape_is_refused() -> None:
    latents = torch.zeros(2, 3, 1, 1, requires_grad=True)
    with pytest.raises(InvalidSetting, match="`image_gradient` should have the shape of the image"):
        pull_back(2 * latents, latents, torch.zeros(1, 3, 1, 1))
