from pathlib import Path

import torch

from diffaudit.models.autoencoder import UnshuffleAutoencoder

WIDTHS = (8, 8, 16, 16)


def test_latents_are_an_eighth_as_wide() -> None:
    autoencoder = UnshuffleAutoencoder(latent_channels=5, widths=WIDTHS)
    images = torch.rand(2, 3, 32, 16)
    latents = autoencoder.encode(images)
    assert latents.shape == (2, 5, 4, 2)
    assert autoencoder.decode(latents).shape == images.shape
    assert torch.equal(autoencoder(images), autoencoder.decode(latents))


def test_a_latent_sees_no_other_image() -> None:
    autoencoder = UnshuffleAutoencoder(widths=WIDTHS)
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(autoencoder.encode(images)[1:], autoencoder.encode(images[1:]))


def test_gradients_pass_both_ways() -> None:
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=WIDTHS)
    images = torch.rand(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(autoencoder(images).sum(), images)
    assert (gradient != 0).all()


def test_save_and_load(tmp_path: Path) -> None:
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=WIDTHS, scaling_factor=0.5, shift_factor=-0.1)
    autoencoder.save_pretrained(tmp_path)
    again = UnshuffleAutoencoder.from_pretrained(tmp_path)
    images = torch.rand(1, 3, 16, 16)
    assert torch.equal(again(images), autoencoder(images))
    assert again.config["scaling_factor"] == 0.5
    assert again.config["shift_factor"] == -0.1
