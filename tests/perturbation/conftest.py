from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from diffaudit.data.captions import VOCABULARY
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.conditioning import IdentityProjector
from diffaudit.models.prior import DiffusionPrior
from diffaudit.training.prior import small_prior

DIMENSION = 6


@pytest.fixture
def prior() -> DiffusionPrior:
    """A random prior in double precision: 16 x 16 images, 2 x 2 latents of 4 channels, identities of 6 numbers."""
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
    )
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8))
    projector = IdentityProjector(DIMENSION, 16, tokens=2, hidden=8)
    prior = DiffusionPrior(autoencoder, unet, DDIMScheduler(), projector=projector)
    return prior.double().eval().requires_grad_(False)


@pytest.fixture
def surrogates() -> list[nn.Module]:
    """Three random classifiers of 16 x 16 images with 5 classes, of gradients of very different length."""

    def network(seed: int, gain: float) -> nn.Module:
        torch.manual_seed(seed)
        layers = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.Tanh(), nn.Linear(8, 5)).double()
        layers[1].weight.data.mul_(gain)  # type: ignore[operator]
        return layers.requires_grad_(False)

    return [network(seed, gain) for seed, gain in ((1, 0.3), (2, 1.0), (3, 10.0))]


@pytest.fixture
def pictures() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


class StubUnet(nn.Module):
    """Noise in closed form, ``answer(latents, timesteps, tokens)``, without attention."""

    def __init__(self, answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.config = SimpleNamespace(class_embed_type=None)
        self.attn_processors: dict[str, object] = {}
        self.is_gradient_checkpointing = False

    def forward(
        self, latents: Tensor, timesteps: Tensor, *, encoder_hidden_states: Tensor, **_: object
    ) -> tuple[Tensor]:
        return (self.answer(latents, timesteps, encoder_hidden_states),)


class Unchanged(IdentityProjector):
    """The embedding, one number, as the only token."""

    def forward(self, embeddings: Tensor) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(tokens=embeddings[:, None, :], pooled=None)


class Pixels(nn.Module):
    """Latents that are pixels from -1 to 1."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(scaling_factor=1.0)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents


@pytest.fixture
def toy_prior() -> Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]:
    """A prior of pixels whose noise is a given function of noisy latents, time steps and tokens ``(B, 1, 1)``."""

    def make(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> DiffusionPrior:
        return DiffusionPrior(Pixels(), StubUnet(answer), DDIMScheduler(), projector=Unchanged(1, 1))

    return make


@pytest.fixture(scope="session")
def worded_prior() -> DiffusionPrior:
    """A random prior that knows words: 64 x 64 images, 8 x 8 latents, attention at 8 x 8 and 4 x 4; not to change."""
    torch.manual_seed(5)
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 16, 16))
    prior = small_prior(autoencoder, vocabulary=VOCABULARY, embedding_dim=6, widths=(16, 32), cross_attention_dim=32)
    return prior.eval().requires_grad_(False)
