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
