from typing import cast

import pytest
import torch
from torch import Tensor, nn

from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.prior import DiffusionPrior
from diffaudit.training.autoencoder import central_crops, detail_weight, psnr, reconstruction_loss, standardise
from diffaudit.training.prior import small_prior


class Shifted(nn.Module):
    """Its latents are constant, and what it decodes is ``picture`` shifted by ``offset``."""

    def __init__(self, picture: Tensor, offset: float = 0.0, latent: float = 0.0) -> None:
        super().__init__()
        self.picture, self.offset, self.latent = picture, offset, latent

    def encode(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 1, 1, 1), self.latent)

    def decode(self, _: Tensor) -> Tensor:
        return self.picture + self.offset

    def forward(self, images: Tensor) -> Tensor:
        return self.decode(self.encode(images))


def shifted(picture: Tensor, offset: float = 0.0, latent: float = 0.0) -> UnshuffleAutoencoder:
    return cast("UnshuffleAutoencoder", Shifted(picture, offset, latent))


def test_plain_areas_weigh_one() -> None:
    torch.testing.assert_close(detail_weight(torch.full((1, 3, 16, 16), 0.7))[..., 4:-4, 4:-4], torch.ones(1, 1, 8, 8))


def test_a_pixel_that_stands_out_weighs_more_and_so_do_its_neighbours() -> None:
    images = torch.zeros(1, 3, 21, 21)
    images[..., 10, 10] = 0.49
    weight = detail_weight(images)[0, 0]
    contrast = 0.49 - 0.49 / 49  # against the mean of 7 x 7 around it
    assert weight[10, 10].item() == pytest.approx(1 + 24 * contrast)
    assert torch.equal(weight[9:12, 9:12], weight[10, 10].expand(3, 3))
    assert weight[10, 12].item() == pytest.approx(1 + 24 * 0.01)
    assert weight[10, 15].item() == pytest.approx(1)


def test_weights_are_bounded() -> None:
    images = torch.zeros(1, 3, 21, 21)
    images[..., 10, 10] = 1
    assert detail_weight(images).max().item() == pytest.approx(13)


def test_the_loss_of_a_constant_error_by_hand() -> None:
    """On a plain picture: the error itself, no edges, and a thousandth of the latents' square."""
    images = torch.full((2, 3, 16, 16), 0.5)
    generator = torch.Generator().manual_seed(0)
    loss = reconstruction_loss(shifted(2 * images - 1, 0.25, 3.0), images, generator)
    assert float(loss) == pytest.approx(0.25 + 1e-3 * 9)


def test_a_blurred_edge_costs_more_than_a_shift_of_the_same_size() -> None:
    images = torch.full((1, 3, 16, 16), 0.5)
    wrong = torch.zeros(1, 3, 16, 16)
    wrong[..., ::2] = 0.5  # the same mean error as 0.25 everywhere, but not the same everywhere
    generator = torch.Generator().manual_seed(0)
    loss = reconstruction_loss(shifted(wrong), images, generator)
    assert float(loss) == pytest.approx(0.25 + 0.5 * 0.5)


def test_psnr_by_hand() -> None:
    """An error of 0.2 in [-1, 1] is 0.1 in [0, 1]: 20 dB. The mean is of decibels, not of errors."""
    images = torch.full((2, 3, 4, 4), 0.5)
    assert psnr(shifted(2 * images - 1, 0.2), images) == pytest.approx(20, abs=1e-3)
    picture = 2 * images - 1
    picture[1] += 0.02
    picture[0] += 0.2
    assert psnr(shifted(picture), images) == pytest.approx(30, abs=1e-3)


def test_standardised_latents_have_zero_mean_and_unit_spread() -> None:
    torch.manual_seed(0)
    model = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8)).eval()
    images = torch.rand(16, 3, 16, 16)
    standardise(model, images)
    prior: DiffusionPrior = small_prior(
        model, vocabulary=["a"], embedding_dim=4, widths=(16, 16), cross_attention_dim=16
    )
    with torch.no_grad():
        latents = prior.encode(images)
    assert float(latents.mean()) == pytest.approx(0, abs=1e-4)
    assert float(latents.std()) == pytest.approx(1, abs=1e-4)


def test_crops_are_one_window_near_the_middle_on_the_grid() -> None:
    """A picture whose pixels hold their own place tells where the window lay."""
    rows, columns = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    picture = torch.stack([rows, columns])[None].repeat(2, 1, 1, 1)
    corners = set()
    for seed in range(100):
        crop = central_crops(picture, torch.Generator().manual_seed(seed))
        assert crop.shape == (2, 2, 40, 40)
        assert torch.equal(crop[0], crop[1])
        corners.add((int(crop[0, 0, 0, 0]), int(crop[0, 1, 0, 0])))
    assert corners == {(top, left) for top in (0, 8, 16, 24) for left in (0, 8, 16, 24)}
