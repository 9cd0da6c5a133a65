from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.conditioning import IdentityProjector
from diffaudit.models.prior import DiffusionPrior

DIMENSION = 6


@pytest.fixture
def prior() -> DiffusionPrior:
    """A random prior of our own kind: 16 x 16 images, 2 x 2 latents of 4 channels, identities of 6 numbers."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        class_embed_type="projection",
        projection_class_embeddings_input_dim=16,
    )
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8))
    projector = IdentityProjector(DIMENSION, 16, tokens=2, hidden=8)
    return DiffusionPrior(autoencoder, unet, DDIMScheduler(), projector=projector).eval().requires_grad_(False)


class StubUnet(nn.Module):
    """Noise in closed form: ``answer(latents, timesteps, tokens)``."""

    def __init__(self, answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.config = SimpleNamespace(class_embed_type=None)

    def forward(
        self, latents: Tensor, timesteps: Tensor, *, encoder_hidden_states: Tensor, **_: object
    ) -> tuple[Tensor]:
        return (self.answer(latents, timesteps, encoder_hidden_states),)


class Unchanged(IdentityProjector):
    """The embedding itself as the only token."""

    def forward(self, embeddings: Tensor) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(tokens=embeddings[:, None, :], pooled=None)


@pytest.fixture
def closed_form_prior() -> Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]:
    """A prior whose noise is a given function of noisy latents, time steps and embeddings ``(B, 1, D)``."""

    def make(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> DiffusionPrior:
        autoencoder = nn.Module()
        autoencoder.config = SimpleNamespace(scaling_factor=1.0)  # type: ignore[assignment]
        return DiffusionPrior(autoencoder, StubUnet(answer), DDIMScheduler(), projector=Unchanged(1, 1)).double()

    return make
