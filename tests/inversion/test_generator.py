import copy
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.inversion.embedding import TableEmbedding
from diffaudit.inversion.generator import (
    Generator,
    add_lora,
    as_published,
    attach_projector,
    check_embedding_fits,
    lora_parameters,
    merge_lora,
    published_projector,
    without_lora,
)
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior

MakePrior = Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]


def draw(count: int = 2, *, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Latents, noise and unit embeddings."""
    generator = torch.Generator().manual_seed(7)
    latents, noise = torch.randn(2, count, 4, 2, 2, generator=generator, dtype=dtype)
    return latents, noise, nn.functional.normalize(torch.randn(count, 6, generator=generator, dtype=dtype), dim=1)


def prediction(prior: DiffusionPrior) -> Tensor:
    latents, _, embeddings = draw()
    return prior.epsilon(latents, torch.tensor([100, 800]), prior.condition(embeddings, 2))


def shaken(prior: DiffusionPrior) -> None:
    """Adapters with random weights in place of the zeros that they begin with."""
    generator = torch.Generator().manual_seed(8)
    with torch.no_grad():
        for parameter in lora_parameters(prior):
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def test_adapters_change_nothing_before_a_step(prior: DiffusionPrior) -> None:
    before = prediction(prior)
    parameters = add_lora(prior, rank=2, alpha=4, seed=0)
    assert torch.equal(prediction(prior), before)
    shaken(prior)
    assert not torch.allclose(prediction(prior), before, atol=1e-3)
    assert parameters == lora_parameters(prior)


def test_adapters_sit_on_attention_and_its_one_by_one_layers(prior: DiffusionPrior) -> None:
    assert lora_parameters(prior) == []
    parameters = add_lora(prior, rank=2, alpha=4, seed=0)
    names = {name.split(".lora_")[0] for name, _ in prior.unet.named_parameters() if ".lora_" in name}
    kinds = {name.split(".")[-1] if not name.endswith("to_out.0") else "to_out.0" for name in names}
    assert kinds == {"to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "conv_shortcut"}
    assert len(parameters) == 2 * len(names)
    for first, second in zip(parameters[::2], parameters[1::2], strict=True):
        assert first.shape[0] == second.shape[1] == 2
        assert not second.any()


def test_the_adapters_alone_are_trainable(prior: DiffusionPrior) -> None:
    parameters = add_lora(prior, rank=2, alpha=4, seed=0)
    assert {id(p) for p in prior.parameters() if p.requires_grad} == {id(p) for p in parameters}


def test_adapters_depend_on_their_seed_alone(prior: DiffusionPrior) -> None:
    other = copy.deepcopy(prior)
    torch.manual_seed(1)
    first = add_lora(prior, rank=2, alpha=4, seed=3)
    state = torch.random.get_rng_state()
    torch.manual_seed(2)
    second = add_lora(other, rank=2, alpha=4, seed=3)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    torch.manual_seed(1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_merged_and_unmerged_agree(prior: DiffusionPrior, tmp_path: Path) -> None:
    add_lora(prior, rank=2, alpha=4, seed=0)
    shaken(prior)
    unmerged = prediction(prior)
    with pytest.raises(InvalidSetting, match="merge_lora"):
        prior.save(tmp_path / "unmerged")
    merge_lora(prior)
    torch.testing.assert_close(prediction(prior), unmerged, rtol=1e-5, atol=1e-5)
    assert lora_parameters(prior) == []
    prior.save(tmp_path / "merged")
    torch.testing.assert_close(prediction(DiffusionPrior.load(tmp_path / "merged")), unmerged, rtol=1e-5, atol=1e-5)


def test_merging_without_adapters_does_nothing(prior: DiffusionPrior) -> None:
    before = prediction(prior)
    merge_lora(prior)
    assert torch.equal(prediction(prior), before)


@pytest.mark.parametrize("trainable", [True, False])
def test_without_lora_is_the_prior_as_published(prior: DiffusionPrior, trainable: bool) -> None:
    published = prediction(prior)
    parameters = add_lora(prior, rank=2, alpha=4, seed=0)
    shaken(prior)
    for parameter in parameters:
        parameter.requires_grad_(trainable)
    adapted = prediction(prior)
    with without_lora(prior):
        assert torch.equal(prediction(prior), published)
    assert torch.equal(prediction(prior), adapted)
    assert all(parameter.requires_grad is trainable for parameter in parameters)


def test_as_published_has_the_projector_of_before(prior: DiffusionPrior) -> None:
    """Whatever has trained it since, and afterwards it is trained again."""
    assert prior.projector is not None
    published, projector = prediction(prior), published_projector(prior)
    add_lora(prior, rank=2, alpha=4, seed=0)
    shaken(prior)
    with torch.no_grad():
        prior.projector.to_tokens.weight.mul_(-1)
    trained = prediction(prior)
    with as_published(prior, projector):
        assert torch.equal(prediction(prior), published)
    assert torch.equal(prediction(prior), trained)
    with pytest.raises(KeyError), as_published(prior, projector):
        raise KeyError
    assert torch.equal(prediction(prior), trained)
    assert not torch.equal(trained, published)


def test_without_lora_restores_after_an_exception(prior: DiffusionPrior) -> None:
    add_lora(prior, rank=2, alpha=4, seed=0)
    shaken(prior)
    adapted = prediction(prior)
    with pytest.raises(KeyError), without_lora(prior):
        raise KeyError
    assert torch.equal(prediction(prior), adapted)
    assert all(parameter.requires_grad for parameter in lora_parameters(prior))


def by_hand(prior: DiffusionPrior, embeddings: Tensor, *, steps: int, gradient_steps: int, guidance: float) -> Tensor:
    """The sampler written out: the steps before the last ``gradient_steps`` see a detached embedding."""
    latents, noise, _ = draw()
    schedule = prior.timesteps(steps, 0.8)
    current = prior.add_noise(latents, noise, torch.full((2,), schedule[0]))
    for index, now in enumerate(schedule):
        seen = embeddings if index >= steps - gradient_steps else embeddings.detach()
        current = current if index >= steps - gradient_steps else current.detach()
        timesteps = torch.full((2,), now)
        with_identity = prior.epsilon(current, timesteps, prior.condition(seen, 2))
        without = prior.epsilon(current, timesteps, prior.condition(None, 2))
        epsilon = without + guidance * (with_identity - without)
        onward = schedule[index + 1] if index + 1 < steps else -1
        current = prior.ddim_step(current, epsilon, timesteps, torch.full((2,), onward))
    return current


@pytest.mark.parametrize("gradient_steps", [1, 2, 3])
@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_truncated_gradients(prior: DiffusionPrior, gradient_steps: int, guidance: float) -> None:
    latents, noise, embeddings = draw()
    embeddings.requires_grad_()
    direction = torch.randn(latents.shape, generator=torch.Generator().manual_seed(9))
    rolled = Generator(prior).rollout(
        latents, noise, embeddings, steps=3, strength=0.8, guidance_scale=guidance, gradient_steps=gradient_steps
    )
    expected = by_hand(prior, embeddings, steps=3, gradient_steps=gradient_steps, guidance=guidance)
    torch.testing.assert_close(rolled, expected, rtol=1e-4, atol=1e-4)
    (found,) = torch.autograd.grad((rolled * direction).sum(), embeddings)
    (wanted,) = torch.autograd.grad((expected * direction).sum(), embeddings)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)
    assert found.abs().max() > 1e-5


def test_no_truncation_is_the_gradient_of_all_steps(prior: DiffusionPrior) -> None:
    latents, noise, embeddings = draw()
    embeddings.requires_grad_()
    generator = Generator(prior)
    gradients = []
    for gradient_steps in (None, 3, 2):
        rolled = generator.rollout(
            latents, noise, embeddings, steps=3, strength=0.8, guidance_scale=1.0, gradient_steps=gradient_steps
        )
        gradients.append(torch.autograd.grad(rolled.square().sum(), embeddings)[0])
    torch.testing.assert_close(gradients[0], gradients[1])
    assert not torch.allclose(gradients[0], gradients[2])


def test_nothing_is_differentiated_where_gradients_are_off(prior: DiffusionPrior) -> None:
    latents, noise, embeddings = draw()
    with torch.no_grad():
        rolled = Generator(prior).rollout(
            latents, noise, embeddings.requires_grad_(), steps=2, strength=1.0, guidance_scale=1.0
        )
    assert not rolled.requires_grad


def test_guidance_asks_for_a_null_condition_only_where_it_is_used(prior: DiffusionPrior) -> None:
    _, _, embeddings = draw()
    condition, null = Generator(prior).conditions(embeddings, 1.0)
    assert null is None
    assert isinstance(condition, Condition)
    _, null = Generator(prior).conditions(embeddings, 2.0)
    assert null is not None
    assert torch.equal(null.tokens, prior.condition(torch.zeros(2, 6), 2).tokens)


SPREAD = 0.5
"""Standard deviation of the Gaussian data whose sampler has a closed form, below."""


def gaussian(prior: list[DiffusionPrior]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    r"""The best prediction of noise for data :math:`N(e, s^2 I)`.

    It is :math:`\sqrt{1-\bar\alpha} (z - \sqrt{\bar\alpha} e)/v`, where :math:`v = \bar\alpha s^2 + 1 - \bar\alpha` is
    the variance of noised data and ``e`` the embedding, one number an image.
    """

    def noise(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        kept = prior[0].alphas_cumprod[timesteps][:, None, None, None]
        variance = kept * SPREAD**2 + 1 - kept
        return (1 - kept).sqrt() * (latents - kept.sqrt() * tokens[:, :, :, None]) / variance

    return noise


@pytest.fixture
def gaussian_prior(closed_form_prior: MakePrior) -> DiffusionPrior:
    holder: list[DiffusionPrior] = []
    holder.append(closed_form_prior(gaussian(holder)))
    return holder[0]


def factors(prior: DiffusionPrior, schedule: list[int]) -> tuple[list[float], list[float]]:
    """What a step does: ``z -> factor z + offset e``, from the deviation of z from its mean shrinking by the factor."""
    levels = [*(float(prior.alphas_cumprod[t]) for t in schedule), 1.0]
    shrink, offset = [], []
    for now, onward in pairwise(levels):
        variance = now * SPREAD**2 + 1 - now
        factor = ((onward * now) ** 0.5 * SPREAD**2 + ((1 - onward) * (1 - now)) ** 0.5) / variance
        shrink.append(factor)
        offset.append(onward**0.5 - factor * now**0.5)
    return shrink, offset


@pytest.mark.parametrize(("steps", "strength"), [(1, 1.0), (4, 1.0), (7, 0.6)])
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_rollout_in_closed_form(gaussian_prior: DiffusionPrior, steps: int, strength: float, guidance: float) -> None:
    latents, noise, _ = draw(dtype=torch.float64)
    means = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    rolled = Generator(gaussian_prior).rollout(
        latents, noise, means, steps=steps, strength=strength, guidance_scale=guidance
    )
    schedule = gaussian_prior.timesteps(steps, strength)
    kept = gaussian_prior.alphas_cumprod[schedule[0]]
    expected = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    # Both predictions are linear in the mean, and that of no identity is 0: guidance multiplies the mean.
    for shrink, offset in zip(*factors(gaussian_prior, schedule), strict=True):
        expected = shrink * expected + offset * guidance * means[:, :, None, None]
    torch.testing.assert_close(rolled, expected, rtol=1e-6, atol=1e-6)


def test_many_steps_carry_noise_to_data(gaussian_prior: DiffusionPrior) -> None:
    """The exact flow maps N(0, 1) to N(e, s^2) by ``z -> e + s z``."""
    noise = torch.randn(2, 4, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    means = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    rolled = Generator(gaussian_prior).rollout(0 * noise, noise, means, steps=1000, strength=1.0, guidance_scale=1.0)
    torch.testing.assert_close(rolled, means[:, :, None, None] + SPREAD * noise, rtol=0, atol=0.02)


@pytest.mark.parametrize("gradient_steps", [1, 3, 5, None])
def test_gradients_in_closed_form(gaussian_prior: DiffusionPrior, gradient_steps: int | None) -> None:
    latents, noise, _ = draw(1, dtype=torch.float64)
    means = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    rolled = Generator(gaussian_prior).rollout(
        latents, noise, means, steps=5, strength=1.0, guidance_scale=1.0, gradient_steps=gradient_steps
    )
    (found,) = torch.autograd.grad(rolled[0, 0, 0, 0], means)
    expected = 0.0
    shrink, offset = factors(gaussian_prior, gaussian_prior.timesteps(5, 1.0))
    for index in range(5 - (gradient_steps or 5), 5):
        expected = shrink[index] * expected + offset[index]
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_one_step_is_the_posterior_mean(gaussian_prior: DiffusionPrior) -> None:
    """E[z_0 | z_t] of a Gaussian: the mean, moved by the observed deviation times ``sqrt(abar) s^2 / v``."""
    latents, noise, _ = draw(dtype=torch.float64)
    means = torch.tensor([[0.7], [-1.2]], dtype=torch.float64)
    timesteps = torch.tensor([300, 900])
    found = Generator(gaussian_prior).one_step(latents, noise, means, timesteps, guidance_scale=1.0)
    kept = gaussian_prior.alphas_cumprod[timesteps][:, None, None, None]
    mean = means[:, :, None, None]
    noisy = kept.sqrt() * latents + (1 - kept).sqrt() * noise
    gain = kept.sqrt() * SPREAD**2 / (kept * SPREAD**2 + 1 - kept)
    torch.testing.assert_close(found, mean + gain * (noisy - kept.sqrt() * mean), rtol=1e-6, atol=1e-6)


def test_a_new_projector_speaks_of_the_encoders_embeddings_and_is_the_seeds(prior: DiffusionPrior) -> None:
    prior.projector = None
    attach_projector(prior, 6, tokens=3, seed=1)
    first = prior.condition(torch.eye(6)[:2], 2).tokens
    assert first.shape == (2, 3, 16)
    check_embedding_fits(prior, TableEmbedding(torch.eye(6)))
    attach_projector(prior, 6, tokens=3, seed=1)
    assert torch.equal(prior.condition(torch.eye(6)[:2], 2).tokens, first)
    attach_projector(prior, 6, tokens=3, seed=2)
    assert not torch.equal(prior.condition(torch.eye(6)[:2], 2).tokens, first)


def test_embeddings_of_another_size_are_refused(prior: DiffusionPrior, gaussian_prior: DiffusionPrior) -> None:
    check_embedding_fits(prior, TableEmbedding(torch.eye(6)))
    with pytest.raises(InvalidSetting, match=r"asked by \(1\)\. Found 6"):
        check_embedding_fits(gaussian_prior, TableEmbedding(torch.eye(6)))
    prior.projector = None
    with pytest.raises(InvalidSetting, match=r"`attack.prior` should have an identity projector.*`diffaudit train pr"):
        check_embedding_fits(prior, TableEmbedding(torch.eye(6)))
