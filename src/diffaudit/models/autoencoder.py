"""The bundled prior's autoencoder: small, deterministic, and first of all a pixel-unshuffle, which makes it cheap."""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """``x + conv(act(norm(conv(act(norm(x))))))`` with the number of channels kept."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))
        self.second = nn.Sequential(nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = x + self.second(self.first(x))
        return hidden


class UnshuffleAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Images ``(B, 3, H, W)`` in [-1, 1] to latents ``(B, latent_channels, H/8, W/8)`` and back, without a posterior.

    The encoder begins with a pixel-unshuffle, so nothing is computed above a quarter of the resolution; the decoder
    unfolds in three steps, ever narrower. Latents are standardised by ``shift_factor`` and ``scaling_factor`` outside
    this module, as with diffusers' own autoencoders: ``(z - shift_factor) * scaling_factor`` has about unit variance.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        latent_channels: int = 16,
        widths: tuple[int, int, int, int] = (16, 32, 64, 128),
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        full, half, quarter, eighth = widths
        self.encoder = nn.Sequential(
            nn.PixelUnshuffle(4),
            nn.Conv2d(48, quarter, 3, padding=1),
            ResidualBlock(quarter),
            nn.Conv2d(quarter, eighth, 3, stride=2, padding=1),
            ResidualBlock(eighth),
            ResidualBlock(eighth),
            nn.GroupNorm(8, eighth),
            nn.SiLU(),
            nn.Conv2d(eighth, latent_channels, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(latent_channels, eighth, 3, padding=1),
            ResidualBlock(eighth),
            ResidualBlock(eighth),
            *_unfold(eighth, quarter),
            ResidualBlock(quarter),
            ResidualBlock(quarter),
            *_unfold(quarter, half),
            ResidualBlock(half),
            *_unfold(half, full),
            ResidualBlock(full),
            nn.Conv2d(full, 3, 3, padding=1),
        )

    def encode(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [-1, 1] to raw latents ``(B, latent_channels, H/8, W/8)``."""
        latents: Tensor = self.encoder(images)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents to images about [-1, 1], not clamped."""
        images: Tensor = self.decoder(latents)
        return images

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def _unfold(channels: int, onward: int) -> tuple[nn.Module, nn.Module]:
    return nn.Conv2d(channels, 4 * onward, 1), nn.PixelShuffle(2)
