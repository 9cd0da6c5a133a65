import copy
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffaudit.errors import InvalidSetting
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.conditioning import Condition, IdentityProjector
from diffaudit.models.prior import PREDICTIONS, DiffusionPrior


def tiny_tokenizer(folder: Path) -> CLIPTokenizer:
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=8)


@pytest.fixture(scope="module")
def stable_diffusion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `StableDiffusionPipeline` writes it, with random weights."""
    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=54,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            norm_num_groups=4,
            sample_size=16,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tiny_tokenizer(folder / "words"),
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
        ),
        scheduler=DDIMScheduler(beta_schedule="scaled_linear", clip_sample=False, steps_offset=1),
        feature_extractor=None,  # type: ignore[arg-type]
        safety_checker=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder / "model", safe_serialization=True)
    return folder / "model"


@pytest.fixture(scope="module")
def prior(stable_diffusion: Path) -> DiffusionPrior:
    return DiffusionPrior.load(stable_diffusion)


class StubUnet(nn.Module):
    """Answers with what ``answer`` makes of noisy latents and time steps, whatever the condition."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.config = SimpleNamespace(class_embed_type=None)

    def forward(self, latents: Tensor, timesteps: Tensor, **_: object) -> tuple[Tensor]:
        return (self.answer(latents, timesteps),)


class StubAutoencoder(nn.Module):
    config = SimpleNamespace(scaling_factor=1.0, shift_factor=None)


def stub_prior(answer: Callable[[Tensor, Tensor], Tensor], prediction_type: str = "epsilon") -> DiffusionPrior:
    scheduler = DDIMScheduler(prediction_type=prediction_type)
    return DiffusionPrior(StubAutoencoder(), StubUnet(answer), scheduler, projector=IdentityProjector(4, 8))


NOTHING = Condition(torch.zeros(3, 1, 8))


def test_shapes(prior: DiffusionPrior) -> None:
    images = torch.rand(2, 3, 16, 16)
    latents = prior.encode(images)
    assert latents.shape == (2, 4, 8, 8)
    assert prior.decode(latents).shape == (2, 3, 16, 16)
    condition = prior.condition(None, 2, "a face")
    assert condition.tokens.shape == (2, 8, 16)
    assert condition.pooled is None
    assert prior.epsilon(latents, torch.tensor([10, 500]), condition).shape == latents.shape
    assert not any(parameter.requires_grad for parameter in prior.parameters())
    assert not prior.training


def test_encode_and_decode_are_those_of_the_autoencoder(prior: DiffusionPrior, stable_diffusion: Path) -> None:
    vae = AutoencoderKL.from_pretrained(stable_diffusion / "vae")
    images = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        latents = vae.encode(images * 2 - 1).latent_dist.mean * vae.config["scaling_factor"]
        decoded = vae.decode(latents / vae.config["scaling_factor"]).sample / 2 + 0.5
    torch.testing.assert_close(prior.encode(images), latents)
    torch.testing.assert_close(prior.decode(latents), decoded)


def test_prompts_are_encoded_as_the_pipeline_does(prior: DiffusionPrior, stable_diffusion: Path) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(stable_diffusion, safety_checker=None)
    with torch.no_grad():
        expected, negative = pipeline.encode_prompt("a face", "cpu", 1, True, "")
    torch.testing.assert_close(prior.condition(None, 2, "a face").tokens, expected.expand(2, -1, -1))
    torch.testing.assert_close(prior.condition(None, 1).tokens, negative)
    both = prior.condition(None, 2, ["a face", ""])
    torch.testing.assert_close(both.tokens, torch.cat([expected, negative]))


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_every_prediction_answers_in_noise(prediction_type: str) -> None:
    generator = torch.Generator().manual_seed(1)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([5, 500, 999])
    kept = DDIMScheduler().alphas_cumprod[timesteps][:, None, None, None]
    answers = {"epsilon": noise, "v_prediction": kept.sqrt() * noise - (1 - kept).sqrt() * clean, "sample": clean}
    prior = stub_prior(lambda *_: answers[prediction_type], prediction_type)
    noisy = kept.sqrt() * clean + (1 - kept).sqrt() * noise
    torch.testing.assert_close(prior.add_noise(clean, noise, timesteps), noisy)
    epsilon = prior.epsilon(noisy, timesteps, NOTHING)
    torch.testing.assert_close(epsilon, noise, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(prior.clean(noisy, epsilon, timesteps), clean, rtol=1e-3, atol=1e-3)


def test_perfect_noise_steps_along_the_noising_itself() -> None:
    prior = stub_prior(lambda latents, _: latents)
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    now, onward = torch.tensor([999, 600, 20]), torch.tensor([500, 10, 0])
    stepped = prior.ddim_step(prior.add_noise(clean, noise, now), noise, now, onward)
    torch.testing.assert_close(stepped, prior.add_noise(clean, noise, onward), rtol=1e-4, atol=1e-4)
    final = prior.ddim_step(prior.add_noise(clean, noise, now), noise, now, torch.full((3,), -1))
    torch.testing.assert_close(final, clean, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prediction_type", PREDICTIONS)
def test_steps_equal_those_of_diffusers(prediction_type: str) -> None:
    scheduler = DDIMScheduler(prediction_type=prediction_type, timestep_spacing="trailing", clip_sample=False)
    scheduler.set_timesteps(4)
    output = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    prior = stub_prior(lambda *_: output, prediction_type)
    schedule = prior.timesteps(4, 1.0)
    assert schedule == scheduler.timesteps.tolist()
    ours = theirs = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    for now, onward in zip(schedule, [*schedule[1:], -1], strict=True):
        timesteps = torch.full((3,), now)
        epsilon = prior.epsilon(ours, timesteps, NOTHING)
        ours = prior.ddim_step(ours, epsilon, timesteps, torch.full((3,), onward))
        theirs = scheduler.step(output, now, theirs, eta=0.0).prev_sample
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_guidance_in_one_call_equals_two(prior: DiffusionPrior) -> None:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    timesteps = torch.tensor([100, 700])
    condition, null = prior.condition(None, 2, "a face"), prior.condition(None, 2)
    with_text, without = prior.epsilon(latents, timesteps, condition), prior.epsilon(latents, timesteps, null)
    guided = prior.guided_epsilon(latents, timesteps, condition, null, 3.0)
    torch.testing.assert_close(guided, without + 3 * (with_text - without), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(prior.guided_epsilon(latents, timesteps, condition, null, 1.0), with_text)


@pytest.mark.parametrize(
    ("steps", "strength", "expected"),
    [
        (4, 1.0, [999, 749, 499, 249]),
        (2, 0.5, [499, 249]),
        (1, 1.0, [999]),
        (1, 1e-6, [0]),
    ],
)
def test_timesteps(steps: int, strength: float, expected: list[int]) -> None:
    prior = stub_prior(lambda latents, _: latents)
    assert prior.num_train_timesteps == 1000
    assert prior.timesteps(steps, strength) == expected


@pytest.mark.parametrize(("steps", "strength"), [(0, 1.0), (4, 0.0), (4, 1.1)])
def test_timesteps_refuses(steps: int, strength: float) -> None:
    with pytest.raises(InvalidSetting, match=r"steps|strength"):
        stub_prior(lambda latents, _: latents).timesteps(steps, strength)


def identity_prior(text: DiffusionPrior | None = None) -> DiffusionPrior:
    torch.manual_seed(6)
    unet = UNet2DConditionModel(
        sample_size=2,
        in_channels=4,
        out_channels=4,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8), scaling_factor=2.0, shift_factor=0.25)
    projector = IdentityProjector(6, 16, tokens=2, hidden=8)
    conditioner = None if text is None else text.text
    return DiffusionPrior(autoencoder, unet, DDIMScheduler(), text=conditioner, projector=projector)


def test_a_unet_that_must_be_told_more_is_refused() -> None:
    """As one of the SDXL family; it would fail in its first call, with the words of another library."""
    known = identity_prior(None)
    known.unet.register_to_config(addition_embed_type="text_time")
    with pytest.raises(InvalidSetting, match=r"`prior` should have a UNet that is told .* Found 'text_time'"):
        DiffusionPrior(known.autoencoder, known.unet, DDIMScheduler(), projector=known.projector)


@pytest.mark.parametrize("with_text", [False, True])
def test_save_and_load(tmp_path: Path, prior: DiffusionPrior, with_text: bool) -> None:
    ours = identity_prior(prior if with_text else None).eval().requires_grad_(False)
    ours.save(tmp_path / "prior")
    again = DiffusionPrior.load(tmp_path / "prior")
    assert {file.suffix for file in (tmp_path / "prior").rglob("*") if file.is_file()} <= {
        ".json",
        ".safetensors",
        ".txt",
    }
    images, embeddings = torch.rand(2, 3, 16, 16), nn.functional.normalize(torch.randn(2, 6), dim=1)
    latents = ours.encode(images)
    assert torch.equal(again.encode(images), latents)
    assert torch.equal(again.decode(latents), ours.decode(latents))
    first, second = (one.condition(embeddings, 2, "a face") for one in (ours, again))
    assert first.tokens.shape == (2, 8 * with_text + 2, 16)
    timesteps = torch.tensor([10, 900])
    assert torch.equal(again.epsilon(latents, timesteps, second), ours.epsilon(latents, timesteps, first))


def test_weights_kept_in_half_precision_are_read_into_single(tmp_path: Path, prior: DiffusionPrior) -> None:
    ours = identity_prior(copy.deepcopy(prior))
    ours.half().save(tmp_path / "half")
    again = DiffusionPrior.load(tmp_path / "half")
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    assert again.condition(None, 1, "a face").tokens.dtype == torch.float32
    torch.testing.assert_close(again.alphas_cumprod, DDIMScheduler().alphas_cumprod)


def test_latents_are_standardised_by_shift_and_scale() -> None:
    ours = identity_prior().eval()
    images = torch.rand(2, 3, 16, 16)
    raw = ours.autoencoder.encode(2 * images - 1)
    torch.testing.assert_close(ours.encode(images), (raw - 0.25) * 2)
    torch.testing.assert_close(ours.decode(ours.encode(images)), ours.autoencoder.decode(raw) / 2 + 0.5)


def test_the_condition_changes_the_prediction_and_null_is_the_zero_vector() -> None:
    ours = identity_prior().eval()
    latents, timesteps = torch.randn(2, 4, 2, 2), torch.tensor([500, 500])
    null, zero = ours.condition(None, 2), ours.condition(torch.zeros(2, 6), 2)
    assert torch.equal(null.tokens, zero.tokens)
    unit = ours.condition(nn.functional.normalize(torch.randn(2, 6), dim=1), 2)
    assert not torch.allclose(ours.epsilon(latents, timesteps, unit), ours.epsilon(latents, timesteps, null))
    pooled_alone = Condition(null.tokens, unit.pooled)
    assert not torch.allclose(ours.epsilon(latents, timesteps, pooled_alone), ours.epsilon(latents, timesteps, null))


def edited_index(source: Path, target: Path, **changes: Any) -> Path:
    target.mkdir()
    for part in source.iterdir():
        if part.is_dir():
            (target / part.name).symlink_to(part)
    index = json.loads((source / "model_index.json").read_text()) | changes
    (target / "model_index.json").write_text(json.dumps(index))
    return target


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"unet": [None, None]}, "name a pipeline with a `unet`"),
        ({"tokenizer": [None, None]}, "name a pipeline with a `tokenizer`"),
        ({"unet": ["os", "system"]}, "come from one of diffusers, transformers"),
        ({"text_encoder": [None, None]}, "know a text or an identity condition"),
    ],
)
def test_load_refuses(stable_diffusion: Path, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        DiffusionPrior.load(edited_index(stable_diffusion, tmp_path / "edited", **changes))


def test_load_refuses_what_is_no_pipeline(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"model_index\.json"):
        DiffusionPrior.load(tmp_path)


def test_schedulers_without_a_variance_schedule_are_refused() -> None:
    parts = StubAutoencoder(), StubUnet(lambda latents, _: latents)
    with pytest.raises(InvalidSetting, match="prediction_type"):
        DiffusionPrior(*parts, FlowMatchEulerDiscreteScheduler(), projector=IdentityProjector(4, 8))
    scheduler = SimpleNamespace(config=SimpleNamespace(prediction_type="epsilon"))
    with pytest.raises(InvalidSetting, match="alphas_cumprod"):
        DiffusionPrior(*parts, scheduler, projector=IdentityProjector(4, 8))


def test_a_mistyped_path_that_looks_like_a_hub_id_is_refused_in_our_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidSetting, match=r"`prior` should be a folder that is there, or .* 'models/my-prior'"):
        DiffusionPrior.load("models/my-prior")
