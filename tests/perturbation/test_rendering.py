import pytest
import torch
from torch import Tensor

from diffaudit.attention import AttentionLayer
from diffaudit.models.attention import attention_layers
from diffaudit.models.conditioning import Condition
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.plans import PathPlan
from diffaudit.perturbation.rendering import Rendered, branch_of, kept_heads, render

PROMPTS = ["a portrait of a person with long red hair", "a person"]
CROSS, SELF = AttentionLayer("attn2", "up", "cross"), AttentionLayer("attn1", "up", "self")


def latents_of(count: int = 2) -> Tensor:
    return torch.randn(count, 4, 8, 8, generator=torch.Generator().manual_seed(0))


def told(prior: DiffusionPrior) -> tuple[Condition, Condition]:
    embeddings = torch.randn(2, 6, generator=torch.Generator().manual_seed(1))
    return prior.condition(embeddings, 2, PROMPTS), prior.condition(None, 2)


def test_rendering_by_hand(worded_prior: DiffusionPrior) -> None:
    condition, null = told(worded_prior)
    current = latents_of()
    for now, onward in ((499, 249), (249, -1)):
        times = torch.full((2,), now)
        without, wanted = (worded_prior.epsilon(current, times, one) for one in (null, condition))
        epsilon = without + 2.5 * (wanted - without)
        current = worded_prior.ddim_step(current, epsilon, times, torch.full((2,), onward))
    found = render(worded_prior, latents_of(), condition, (null, null), PathPlan(4, 2, 2.5))
    torch.testing.assert_close(found.image, worded_prior.decode(current), rtol=1e-4, atol=1e-5)
    assert found.steps == ()


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_recording_changes_nothing(worded_prior: DiffusionPrior, guidance: float) -> None:
    condition, null = told(worded_prior)
    path, nulls = PathPlan(4, 2, guidance), (None, None) if guidance == 1 else (null, null)
    plain = render(worded_prior, latents_of(), condition, nulls, path)
    recorded = render(worded_prior, latents_of(), condition, nulls, path, attention_layers(worded_prior.unet))
    torch.testing.assert_close(recorded.image, plain.image, rtol=0, atol=1e-5)
    assert len(recorded.steps) == 2


def test_only_what_is_asked_for_is_recorded(worded_prior: DiffusionPrior) -> None:
    condition, _ = told(worded_prior)
    path = PathPlan(4, 0, 1.0)
    layers = [layer for layer in attention_layers(worded_prior.unet) if layer.place == "mid"]
    # Of the time steps 999, 749, 499 and 249, two have a progress between a quarter and 0.6.
    found = render(worded_prior, latents_of(), condition, (None,) * 4, path, layers, window=(0.25, 0.6))
    assert [set(step) for step in found.steps] == [set(layers)] * 2
    assert render(worded_prior, latents_of(), condition, (None,) * 4, path).steps == ()


def test_the_steps_recorded_are_those_of_the_window(worded_prior: DiffusionPrior) -> None:
    condition, _ = told(worded_prior)
    layers, path = attention_layers(worded_prior.unet)[:2], PathPlan(4, 0, 1.0)
    every = render(worded_prior, latents_of(), condition, (None,) * 4, path, layers)
    some = render(worded_prior, latents_of(), condition, (None,) * 4, path, layers, window=(0.25, 0.6))
    for one, wanted in zip(some.steps, every.steps[1:3], strict=True):
        for layer in layers:
            torch.testing.assert_close(one[layer], wanted[layer], rtol=0, atol=1e-6)


def test_guidance_leaves_out_the_rows_of_the_null_condition(worded_prior: DiffusionPrior) -> None:
    """At the first step both ways stand at the same latent: attention is that of the condition asked alone."""
    condition, null = told(worded_prior)
    layers = attention_layers(worded_prior.unet)
    guided = render(worded_prior, latents_of(), condition, (null,), PathPlan(4, 3, 2.5), layers)
    plain = render(worded_prior, latents_of(), condition, (None,), PathPlan(4, 3, 1.0), layers)
    for layer in layers:
        torch.testing.assert_close(guided.steps[0][layer], plain.steps[0][layer], rtol=0, atol=1e-5)
        assert len(guided.steps[0][layer]) == 2


def test_pictures_and_maps_have_gradients_of_their_own_latent(worded_prior: DiffusionPrior) -> None:
    condition, _ = told(worded_prior)
    latents, layers = latents_of().requires_grad_(), attention_layers(worded_prior.unet)[-2:]
    found = render(worded_prior, latents, condition, (None, None), PathPlan(4, 2, 1.0), layers)
    for value in (found.image[0].square().sum(), found.steps[1][layers[0]][0].square().sum()):
        (gradient,) = torch.autograd.grad(value, latents, retain_graph=True)
        assert gradient[0].abs().max() > 0
        assert not gradient[1].any()


def test_rows_take_the_place_of_their_own_and_the_others_keep_theirs() -> None:
    layer = AttentionLayer("attn", "down", "cross")
    before = Rendered(torch.zeros(3, 3, 2, 2, requires_grad=True), ({layer: torch.zeros(3, 2, 4, 5)},))
    start = torch.ones(2, requires_grad=True)
    rows = torch.tensor([0, 2])
    part = Rendered(
        start.view(2, 1, 1, 1).expand(2, 3, 2, 2), ({layer: 2 * start.view(2, 1, 1, 1).expand(2, 2, 4, 5)},)
    )
    found = before.with_rows(rows, part)
    assert found.image.flatten(1).sum(1).tolist() == [12, 0, 12]
    (maps,) = found.steps
    assert maps[layer].flatten(1).mean(1).tolist() == [2, 0, 2]
    (found.image.sum() + maps[layer].sum()).backward()
    assert start.grad is not None
    assert start.grad.tolist() == [12 + 80, 12 + 80]
    assert before.image.grad is None
    assert before.with_rows(rows, Rendered(part.image, ())).steps == ()


def raw_steps(steps: int = 2) -> tuple[dict[AttentionLayer, Tensor], ...]:
    generator = torch.Generator().manual_seed(2)
    return tuple(
        {
            CROSS: torch.rand(3, 4, 9, 5, generator=generator).softmax(3),
            SELF: torch.rand(3, 4, 9, 9, generator=generator).softmax(3),
        }
        for _ in range(steps)
    )


def test_heads_are_drawn_of_cross_attention_alone() -> None:
    kept = kept_heads(raw_steps(), 0.5, torch.Generator().manual_seed(3))
    assert set(kept) == {CROSS}
    assert kept[CROSS].shape == (4,)
    again = kept_heads(raw_steps(), 0.5, torch.Generator().manual_seed(3))
    assert torch.equal(kept[CROSS], again[CROSS])
    assert kept_heads(raw_steps(), 1.0, torch.Generator()) == {}
    assert kept_heads((), 0.5, torch.Generator()) == {}


def test_a_branch_averages_heads_and_leaves_self_attention() -> None:
    steps, tokens = raw_steps(), torch.tensor([[False, True, True, False, False]]).expand(3, 5)
    branch = branch_of(steps, (tokens, None))
    assert branch.label is tokens
    assert branch.rival is None
    for read, raw in zip(branch.steps, steps, strict=True):
        torch.testing.assert_close(read[CROSS], raw[CROSS].mean(1))
        assert read[SELF] is raw[SELF]


def test_branches_share_the_heads_that_are_kept() -> None:
    """The same heads of the clean and of the perturbed maps, at every step."""
    kept = {CROSS: torch.tensor([True, False, False, True])}
    for steps in (raw_steps(), tuple(reversed(raw_steps()))):
        for read, raw in zip(branch_of(steps, None, kept).steps, steps, strict=True):
            torch.testing.assert_close(read[CROSS], (raw[CROSS][:, 0] + raw[CROSS][:, 3]) / 2)


def test_heads_count_by_their_weights() -> None:
    kept = {CROSS: torch.tensor([True, False, False, True])}
    (read, *_), (raw, *_) = branch_of(raw_steps(), None, kept, weights=(3.0, 1.0, 1.0, 1.0)).steps, raw_steps()
    torch.testing.assert_close(read[CROSS], (3 * raw[CROSS][:, 0] + raw[CROSS][:, 3]) / 4)
    assert read[SELF] is raw[SELF] or torch.equal(read[SELF], raw[SELF])


def test_without_words_no_label_has_tokens() -> None:
    branch = branch_of(raw_steps(), None)
    assert branch.label.numel() == 0
    assert branch.rival is None
