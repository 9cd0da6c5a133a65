"""An exported autoencoder: two programs that halve or quarter the picture, by hand, and the real one where it lies."""

import json
import re
from pathlib import Path

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from pydantic import ValidationError
from torch import Tensor, nn

from diffaudit.build.models import build_prior
from diffaudit.data.folders import read_image
from diffaudit.errors import InvalidSetting, UnsafeArchive
from diffaudit.models.conditioning import IdentityProjector
from diffaudit.models.exported_autoencoder import ExportedAutoencoder, exported_autoencoder
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.latents import reconstruction_psnr
from diffaudit.settings import ExportedAutoencoderModel, PriorModel


class Fold(nn.Module):
    """Four neighbouring pixels of an image in [0, 1] as twelve channels: lossless."""

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.pixel_unshuffle(images, 2)


class Unfold(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(latents, 2)


class Clamped(nn.Module):
    def forward(self, latents: Tensor) -> Tensor:
        return nn.functional.pixel_shuffle(latents, 2).clamp(0, 1)


def export(
    model: nn.Module, path: Path, channels: int, *, multiple: int = 1, fixed: bool = False, inputs: bool = False
) -> Path:
    batch, height, width = torch.export.Dim("batch"), torch.export.Dim("h", max=64), torch.export.Dim("w", max=64)
    sizes = {0: batch} if fixed else {0: batch, 2: multiple * height, 3: multiple * width}
    example = torch.rand(2, channels, 8 * multiple, 12 * multiple)
    program = torch.export.export(model.eval(), (example,), dynamic_shapes=(sizes,))
    if not inputs:
        program.example_inputs = None
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("autoencoder")
    export(Fold(), folder / "encoder.pt2", 3, multiple=2)
    export(Unfold(), folder / "decoder.pt2", 12)
    export(Clamped(), folder / "clamped.pt2", 12)
    export(Fold(), folder / "fixed.pt2", 3, multiple=2, fixed=True)
    export(nn.Conv2d(3, 5, 2, stride=2), folder / "other.pt2", 3, multiple=2)
    export(Fold(), folder / "inputs.pt2", 3, multiple=2, inputs=True)
    return folder


@pytest.fixture
def tiny(files: Path) -> ExportedAutoencoder:
    return exported_autoencoder(files / "encoder.pt2", files / "decoder.pt2", allow_code=False)


def prior_with(autoencoder: nn.Module, channels: int = 12) -> DiffusionPrior:
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=channels,
        out_channels=channels,
        block_out_channels=(8,),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        mid_block_type=None,
        cross_attention_dim=8,
        attention_head_dim=4,
        norm_num_groups=4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=8,
    )
    return DiffusionPrior(autoencoder, unet, DDIMScheduler(), projector=IdentityProjector(4, 8, hidden=8))


def test_the_programs_see_images_from_0_to_1_and_latents_as_they_are(tiny: ExportedAutoencoder) -> None:
    images = torch.rand(3, 3, 10, 6)
    prior = prior_with(tiny)
    latents = prior.encode(images)
    torch.testing.assert_close(latents, nn.functional.pixel_unshuffle(images, 2))
    torch.testing.assert_close(prior.decode(latents), images)


def test_latents_are_standardised_by_the_shift_and_scale_asked_for(files: Path) -> None:
    own = exported_autoencoder(files / "encoder.pt2", files / "decoder.pt2", allow_code=False, shift=0.5, scale=4.0)
    images = torch.rand(1, 3, 8, 8)
    prior = prior_with(own)
    torch.testing.assert_close(prior.encode(images), (nn.functional.pixel_unshuffle(images, 2) - 0.5) * 4)
    torch.testing.assert_close(prior.decode(prior.encode(images)), images)


def test_gradients_pass_beyond_the_range_of_images(tiny: ExportedAutoencoder) -> None:
    latents = torch.full((1, 12, 4, 4), 3.0, requires_grad=True)
    prior_with(tiny).decode(latents).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, torch.ones_like(latents))


def test_train_eval_and_a_change_of_type_do_not_disturb_the_programs(tiny: ExportedAutoencoder) -> None:
    prior = prior_with(tiny).train().eval().double()
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(prior.decode(prior.encode(images)), images)


def test_a_prior_is_saved_without_the_programs_and_opened_with_them(
    tiny: ExportedAutoencoder, files: Path, tmp_path: Path
) -> None:
    vars(tiny.config).update(shift_factor=0.25, scaling_factor=2.0)
    ours = prior_with(tiny).eval().requires_grad_(False)
    ours.save(tmp_path)
    assert [file.name for file in (tmp_path / "vae").iterdir()] == ["config.json"]
    with pytest.raises(InvalidSetting, match=r"`prior\.autoencoder` should be given as two \.pt2 files"):
        DiffusionPrior.load(tmp_path)
    programs = ExportedAutoencoderModel(encoder=files / "encoder.pt2", decoder=files / "decoder.pt2")
    again = build_prior(PriorModel(kind="diffusers", location=str(tmp_path), autoencoder=programs))
    images = torch.rand(2, 3, 8, 8)
    assert torch.equal(again.encode(images), ours.encode(images))
    torch.testing.assert_close(again.encode(images), (nn.functional.pixel_unshuffle(images, 2) - 0.25) * 2)
    overruled = programs.model_copy(update={"shift": 0.0, "scale": 1.0})
    other = build_prior(PriorModel(kind="diffusers", location=str(tmp_path), autoencoder=overruled))
    torch.testing.assert_close(other.encode(images), nn.functional.pixel_unshuffle(images, 2))


def test_it_takes_the_place_of_a_folders_own_autoencoder(tiny_world: Path, files: Path, tmp_path: Path) -> None:
    four = export(nn.Conv2d(3, 4, 8, stride=8), tmp_path / "encoder.pt2", 3, multiple=8)
    back = export(nn.ConvTranspose2d(4, 3, 8, stride=8), tmp_path / "decoder.pt2", 4)
    found = DiffusionPrior.load(tiny_world / "prior", autoencoder=exported_autoencoder(four, back, allow_code=False))
    assert found.encode(torch.rand(1, 3, 64, 64)).shape == (1, 4, 8, 8)
    with pytest.raises(InvalidSetting, match=r"as many channels as the prior's UNet, 4\. Found 12"):
        DiffusionPrior.load(
            tiny_world / "prior",
            autoencoder=exported_autoencoder(files / "encoder.pt2", files / "decoder.pt2", allow_code=False),
        )


def test_another_encoder_than_the_prior_was_trained_with_is_refused(tiny: ExportedAutoencoder, tmp_path: Path) -> None:
    prior_with(tiny).save(tmp_path)
    path = tmp_path / "vae" / "config.json"
    values = json.loads(path.read_text())
    assert values["encoder_fingerprint"] == tiny.fingerprints["encoder"]
    path.write_text(json.dumps(values | {"encoder_fingerprint": 64 * "0"}))
    with pytest.raises(InvalidSetting, match="the file whose latents the prior was trained on"):
        DiffusionPrior.load(tmp_path, autoencoder=tiny)
    path.write_text(json.dumps({name: value for name, value in values.items() if name != "encoder_fingerprint"}))
    DiffusionPrior.load(tmp_path, autoencoder=tiny)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        ("none.pt2", "decoder.pt2", r"`autoencoder\.encoder` should be a \.pt2 file"),
        ("encoder.pt2", "none.pt2", r"`autoencoder\.decoder` should be a \.pt2 file"),
        ("encoder.pt2", "clamped.pt2", r"`autoencoder\.decoder` should not clamp its images"),
        ("fixed.pt2", "decoder.pt2", r"`autoencoder\.encoder` should take images \(B, 3, 64, 64\)"),
        ("other.pt2", "decoder.pt2", r"`autoencoder\.decoder` should take latents \('B', 5, 32, 32\)"),
        ("encoder.pt2", "encoder.pt2", r"`autoencoder\.decoder` should take latents"),
    ],
)
def test_what_does_not_fit_is_refused(files: Path, encoder: str, decoder: str, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        exported_autoencoder(files / encoder, files / decoder, allow_code=False)


def test_a_bundled_prior_brings_its_own(files: Path) -> None:
    programs = ExportedAutoencoderModel(encoder=files / "encoder.pt2", decoder=files / "decoder.pt2")
    with pytest.raises(ValidationError, match="`autoencoder` should be left out where `kind` is bundled"):
        PriorModel(autoencoder=programs)


def test_what_could_run_code_needs_leave(files: Path) -> None:
    with pytest.raises(UnsafeArchive, match="pickled sample inputs"):
        exported_autoencoder(files / "inputs.pt2", files / "decoder.pt2", allow_code=False)
    exported_autoencoder(files / "inputs.pt2", files / "decoder.pt2", allow_code=True)


def test_the_tiny_autoencoder_for_flux_latents(shared_models: Path) -> None:
    folder = shared_models / "autoencoder"
    found = exported_autoencoder(folder / "taef2_encoder.pt2", folder / "taef2_decoder_raw.pt2", allow_code=False)
    prior = prior_with(found, channels=32)
    paths = sorted((shared_models.parent / "imagenet" / "images").glob("*.jpg"))[:4]
    images = torch.stack([read_image(path, size=128) for path in paths]).float() / 255
    latents = prior.encode(images)
    assert latents.shape == (4, 32, 16, 16)
    assert float(reconstruction_psnr(images, prior.decode(latents).clamp(0, 1)).min()) > 20
    assert float(reconstruction_psnr(images, prior.decode(latents).clamp(0, 1)).mean()) > 27
    with pytest.raises(InvalidSetting, match=re.escape("not clamp its images")):
        exported_autoencoder(folder / "taef2_encoder.pt2", folder / "taef2_decoder.pt2", allow_code=False)
    # Where the clamped decoder stops, the raw one goes on: of the values outside [0, 1] alone.
    moved = (3 * latents).detach().requires_grad_()
    decoded = prior.decode(moved)
    outside = (decoded < 0) | (decoded > 1)
    assert bool(outside.any())
    decoded[outside].sum().backward()
    assert moved.grad is not None
    assert bool((moved.grad != 0).any())
    clamped = torch.export.load(folder / "taef2_decoder.pt2").module(check_guards=False)
    again = (3 * latents).detach().requires_grad_()
    clamped(again)[outside].sum().backward()
    assert again.grad is not None
    assert not bool(again.grad.any())
