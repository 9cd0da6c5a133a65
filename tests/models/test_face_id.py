"""A random adapter in the layout of the published ones, on a random UNet that knows text alone."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.inversion.embedding import TableEmbedding
from diffaudit.inversion.generator import add_lora, check_embedding_fits
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.face_id import attach_face_id
from diffaudit.models.prior import DiffusionPrior
from diffaudit.records import RunFolder, read_records
from diffaudit.settings import check_settings
from diffaudit.study.runner import run_inversion
from diffaudit.training.prior import small_prior

FACE, SIZE, TOKENS = 6, 16, 4


@pytest.fixture
def prior() -> DiffusionPrior:
    torch.manual_seed(0)
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8))
    prior = small_prior(
        autoencoder, vocabulary=("a", "person"), embedding_dim=None, widths=(16,), cross_attention_dim=SIZE
    )
    return prior.eval().requires_grad_(False)


def adapter(prior: DiffusionPrior, *, rank: int | None = None, face: int = FACE) -> dict[str, dict[str, Tensor]]:
    """Numbered as published: every attention of the UNet has a number, the cross-attentions are the odd ones."""
    generator = torch.Generator().manual_seed(1)

    def weight(*shape: int) -> Tensor:
        return 0.3 * torch.randn(*shape, generator=generator)

    projection = {
        "proj.0.weight": weight(2 * face, face),
        "proj.0.bias": weight(2 * face),
        "proj.2.weight": weight(TOKENS * SIZE, 2 * face),
        "proj.2.bias": weight(TOKENS * SIZE),
        "norm.weight": torch.ones(SIZE),
        "norm.bias": torch.zeros(SIZE),
    }
    attention: dict[str, Tensor] = {}
    for number, name in enumerate(prior.unet.attn_processors):
        layer = prior.unet.get_submodule(name.removesuffix(".processor"))
        width = layer.to_q.out_features
        if number % 2:
            attention |= {
                f"{number}.to_k_ip.weight": weight(width, SIZE),
                f"{number}.to_v_ip.weight": weight(width, SIZE),
            }
        for part in ("q", "k", "v", "out") if rank else ():
            inner = layer.to_out[0] if part == "out" else getattr(layer, f"to_{part}")
            attention[f"{number}.to_{part}_lora.down.weight"] = weight(rank or 0, inner.in_features)
            attention[f"{number}.to_{part}_lora.up.weight"] = weight(inner.out_features, rank or 0)
    return {"image_proj": projection, "ip_adapter": attention}


def saved(state: dict[str, dict[str, Tensor]], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({f"{part}.{key}": value for part, values in state.items() for key, value in values.items()}, path)
    else:
        torch.save(state, path)
    return path


def prediction(prior: DiffusionPrior, faces: Tensor | None) -> Tensor:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    return prior.epsilon(latents, torch.tensor([100, 800]), prior.condition(faces, 2, "a person"))


FACES = torch.nn.functional.normalize(torch.randn(2, FACE, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.mark.parametrize("ending", ["bin", "safetensors"])
def test_the_adapter_draws_who_is_asked_for(prior: DiffusionPrior, tmp_path: Path, ending: str) -> None:
    attach_face_id(prior, saved(adapter(prior), tmp_path / f"face.{ending}"))
    assert prior.dimension == FACE
    asked, other, nobody = (prediction(prior, faces) for faces in (FACES, FACES.flip(0), None))
    assert (asked - other).abs().max() > 1e-3
    torch.testing.assert_close(nobody, prediction(prior, torch.zeros(2, FACE)))
    alone = prior.epsilon(*_first(prior))
    torch.testing.assert_close(asked[:1], alone, rtol=1e-4, atol=1e-5)
    check_embedding_fits(prior, TableEmbedding(torch.eye(FACE)))
    with pytest.raises(InvalidSetting, match=f"asked by \\({FACE}\\). Found 7"):
        check_embedding_fits(prior, TableEmbedding(torch.eye(7)))


def _first(prior: DiffusionPrior) -> Any:
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))[:1]
    return latents, torch.tensor([100]), prior.condition(FACES, 2, "a person")[:1]


def test_at_scale_0_the_text_alone_speaks(prior: DiffusionPrior, tmp_path: Path) -> None:
    before = prediction(prior, None)
    path = saved(adapter(prior), tmp_path / "face.bin")
    attach_face_id(prior, path, scale=1e-9)
    torch.testing.assert_close(prediction(prior, FACES), before, rtol=1e-5, atol=1e-5)


def test_low_rank_changes_are_merged(prior: DiffusionPrior, tmp_path: Path) -> None:
    """As published, each is up times down, of scale 1."""
    state, published = adapter(prior, rank=3), copy.deepcopy(prior.unet)
    attach_face_id(prior, saved(state, tmp_path / "face.bin"))
    assert not any(".lora_" in name for name, _ in prior.unet.named_parameters())
    for number, name in enumerate(published.attn_processors):
        layer = name.removesuffix(".processor")
        up, down = (state["ip_adapter"][f"{number}.to_q_lora.{part}.weight"] for part in ("up", "down"))
        expected = published.get_submodule(layer).to_q.weight + up @ down
        torch.testing.assert_close(prior.unet.get_submodule(layer).to_q.weight, expected)


@pytest.mark.parametrize("rank", [None, 3])
def test_the_gradient_reaches_the_embedding_through_adapters_of_our_own(
    prior: DiffusionPrior, tmp_path: Path, rank: int | None
) -> None:
    attach_face_id(prior, saved(adapter(prior, rank=rank), tmp_path / "face.bin"))
    before = prediction(prior, FACES)
    trained = add_lora(prior, rank=2, alpha=4, seed=0)
    assert torch.equal(prediction(prior, FACES), before)
    faces = FACES.clone().requires_grad_()
    prediction(prior, faces).square().sum().backward()
    assert faces.grad is not None
    assert faces.grad.abs().amax(1).min() > 0
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in trained)


def test_guidance_leads_away_from_nobody(prior: DiffusionPrior, tmp_path: Path) -> None:
    attach_face_id(prior, saved(adapter(prior), tmp_path / "face.bin"))
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    when, condition, null = torch.tensor([100, 800]), prior.condition(FACES, 2), prior.condition(None, 2)
    apart = prior.epsilon(latents, when, condition) - prior.epsilon(latents, when, null)
    expected = prior.epsilon(latents, when, null) + 2.5 * apart
    torch.testing.assert_close(
        prior.guided_epsilon(latents, when, condition, null, 2.5), expected, rtol=1e-4, atol=1e-4
    )


def _with(key: str, value: Tensor) -> Any:
    """As the forms Plus, which reads a picture too, and Portrait, which reads several embeddings."""
    return lambda state: state | {"image_proj": state["image_proj"] | {key: value}}


@pytest.mark.parametrize(
    ("damage", "rule"),
    [
        (lambda state: {"image_proj": state["image_proj"]}, "hold the parts image_proj and ip_adapter"),
        (lambda state: state | {"image_proj": {"latents": torch.zeros(1, 2, 3)}}, "be an IP-Adapter FaceID"),
        (_with("perceiver_resampler.proj_in.weight", torch.zeros(2, 2)), "be an IP-Adapter FaceID"),
        (_with("proj.2.bias", torch.zeros(16 * SIZE)), "be an IP-Adapter FaceID, .* as 4 tokens"),
        (lambda state: state | {"ip_adapter": {"1.to_k_ip.weight": torch.zeros(2, 2)}}, "fit the prior's UNet"),
    ],
)
def test_other_checkpoints_are_refused(prior: DiffusionPrior, tmp_path: Path, damage: Any, rule: str) -> None:
    path = saved(damage(adapter(prior)), tmp_path / "face.bin")
    with pytest.raises(InvalidSetting, match=f"`attack.prior.face_id` should {rule}"):
        attach_face_id(prior, path)


def test_a_missing_adapter_is_named(prior: DiffusionPrior, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"`attack.prior.face_id` should be a file. Found '.*face.bin'"):
        attach_face_id(prior, tmp_path / "face.bin")


def test_a_prior_is_not_saved_without_its_adapter(prior: DiffusionPrior, tmp_path: Path) -> None:
    attach_face_id(prior, saved(adapter(prior), tmp_path / "face.bin"))
    with pytest.raises(InvalidSetting, match="have no IP-Adapter when it is saved"):
        prior.save(tmp_path / "prior")


def test_a_run_through_an_adapter(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """All rows are there, and a run that is repeated ends with the same bits."""
    torch.manual_seed(4)
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 16, 16))
    prior = small_prior(
        autoencoder, vocabulary=("a", "person"), embedding_dim=None, widths=(16,), cross_attention_dim=SIZE
    )
    prior.save(tmp_path / "prior")
    path = saved(adapter(prior, rank=2, face=16), tmp_path / "face.safetensors")
    tiny_values["attack"]["prior"] = {
        "kind": "diffusers",
        "location": str(tmp_path / "prior"),
        "face_id": {"path": str(path)},
        "prompt": "a person",
    }
    runs = [
        RunFolder(run_inversion(check_settings(tiny_values), tmp_path / name, command="test"))
        for name in ("one", "two")
    ]
    rows = {record.row for record in read_records(runs[0].records)}
    assert rows == {"attack", "start", "oracle", "upper", "lower"}
    assert runs[0].records.read_bytes() == runs[1].records.read_bytes()
