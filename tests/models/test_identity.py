import torch
from torch import Tensor, nn

from diffaudit.models.identity import IdentityEncoder


class ChannelMeans(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_embeddings_are_unit_vectors() -> None:
    encoder = IdentityEncoder(ChannelMeans(), size=None, dimension=3, fingerprint="f")
    image = torch.tensor([0.0, 0.3, 0.4])[None, :, None, None].expand(1, 3, 4, 4)
    torch.testing.assert_close(encoder(image), torch.tensor([[0.0, 0.6, 0.8]]))


def test_images_are_resized() -> None:
    seen: list[tuple[int, ...]] = []
    model = ChannelMeans()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    IdentityEncoder(model, size=6, dimension=3, fingerprint="f")(torch.rand(2, 3, 9, 9))
    assert seen == [(2, 3, 6, 6)]


def test_the_encoder_is_frozen_and_lets_gradients_through() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    encoder = IdentityEncoder(model, size=None, dimension=4, fingerprint="f")
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    encoder(images)[0, 0].backward()
    assert images.grad is not None
    assert images.grad.abs().max() > 0
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
