from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from diffaudit.inversion.attacker import Attacker, look_at
from diffaudit.models.attributes import light_estimator, low_pass_light
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.classifier import Classifier
from diffaudit.models.conditioning import IdentityProjector
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures
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


class Pixels(nn.Module):
    """An autoencoder that changes nothing: a latent is the picture itself, from -1 to 1."""

    config = SimpleNamespace(scaling_factor=1.0)

    def encode(self, images: Tensor) -> Tensor:
        return images

    def decode(self, latents: Tensor) -> Tensor:
        return latents


class Unchanged(IdentityProjector):
    """The embedding itself as the only token."""

    def forward(self, embeddings: Tensor) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(tokens=embeddings[:, None, :], pooled=None)


@pytest.fixture
def closed_form_prior() -> Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]:
    """A prior whose noise is a given function of noisy latents, time steps and embeddings ``(B, 1, D)``."""

    def make(answer: Callable[[Tensor, Tensor, Tensor], Tensor]) -> DiffusionPrior:
        return DiffusionPrior(Pixels(), StubUnet(answer), DDIMScheduler(), projector=Unchanged(1, 1)).double()

    return make


class TwoScales(nn.Module):
    """The picture itself, and its quarters' means, as feature maps."""

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images, nn.functional.avg_pool2d(images, 8)]


@pytest.fixture
def attacker(prior: DiffusionPrior) -> Attacker:
    """Five classes of eight are sought, with linear models and thirty random public pictures."""
    torch.manual_seed(1)
    classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(768, 8)), size=16, fingerprint="target")
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, DIMENSION))
    encoder = IdentityEncoder(model, size=16, dimension=DIMENSION, fingerprint="encoder")
    images = torch.randint(256, (30, 3, 16, 16), dtype=torch.uint8)
    return Attacker(
        classes=torch.tensor([1, 2, 4, 6, 7]),
        classifier=classifier,
        prior=prior,
        encoder=encoder,
        attributes=light_estimator(low_pass_light, images),
        perceptual=PerceptualFeatures(TwoScales()),
        public=look_at(images, classifier, encoder),
    )
