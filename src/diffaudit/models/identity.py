"""Identity encoders: images to unit vectors whose cosine says whether two pictures show one person."""

from torch import Tensor, nn

from diffaudit.models.classifier import resized


class IdentityEncoder(nn.Module):
    """A frozen encoder ``(B, 3, H, W)`` in [0, 1] to unit vectors ``(B, D)``; ``size`` as in :class:`.Classifier`."""

    def __init__(self, model: nn.Module, *, size: int | None, dimension: int, fingerprint: str) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.dimension = dimension
        self.fingerprint = fingerprint
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.model(resized(images, self.size)), dim=1)
