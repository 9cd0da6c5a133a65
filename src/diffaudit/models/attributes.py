"""Estimators of what a photograph shows beside the person: pose, expression, illumination."""

from torch import Tensor, nn

from diffaudit.data.faces import EXPRESSION_FACTORS, ILLUMINATION_FACTORS, POSE_FACTORS
from diffaudit.models.classifier import resized

ATTRIBUTES: dict[str, slice] = {
    "pose": slice(0, 3),
    "expression": slice(3, 7),
    "illumination": slice(7, 10),
}
ATTRIBUTE_NAMES = POSE_FACTORS + EXPRESSION_FACTORS + ILLUMINATION_FACTORS


class AttributeEstimator(nn.Module):
    """A frozen, differentiable network ``(B, 3, H, W)`` in [0, 1] to attributes by name.

    Args:
        model: ``images -> (B, 10)`` in the factors' own units (degrees for angles).
        size: side in pixels that the model wants; None: any.
        spread: ``(10,)`` standard deviation of each attribute over public pictures, the unit of every distance.
    """

    def __init__(self, model: nn.Module, *, size: int | None, spread: Tensor) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.register_buffer("spread", spread.clone(), persistent=False)
        self.spread: Tensor
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``{"pose": (B, 3), "expression": (B, 4), "illumination": (B, 3)}``, standardised by the public spread."""
        values = self.model(resized(images, self.size)) / self.spread
        return {name: values[:, columns] for name, columns in ATTRIBUTES.items()}


def low_pass_light(images: Tensor, *, grid: int = 4) -> Tensor:
    """``(B, grid * grid)`` mean luminance on a coarse grid: illumination without a network, for any photographs.

    >>> import torch
    >>> low_pass_light(torch.ones(1, 3, 8, 8), grid=2)
    tensor([[1., 1., 1., 1.]])
    """
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    luminance = (images * weights).sum(1, keepdim=True)
    return nn.functional.adaptive_avg_pool2d(luminance, grid).flatten(1)
