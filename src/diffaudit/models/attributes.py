"""Estimators of what a photograph shows beside the person: pose, expression, illumination."""

from collections.abc import Callable, Mapping
from functools import lru_cache

import torch
from torch import Tensor, nn

from diffaudit.data.faces import EXPRESSION_FACTORS, ILLUMINATION_FACTORS, POSE_FACTORS
from diffaudit.errors import InvalidSetting
from diffaudit.models.classifier import resized

ATTRIBUTES: dict[str, slice] = {
    "pose": slice(0, 3),
    "expression": slice(3, 7),
    "illumination": slice(7, 10),
}
ATTRIBUTE_NAMES = POSE_FACTORS + EXPRESSION_FACTORS + ILLUMINATION_FACTORS


class AttributeEstimator(nn.Module):
    """A frozen, differentiable estimator ``(B, 3, H, W)`` in [0, 1] to attributes by name.

    Args:
        model: ``images -> (B, F)`` in the attributes' own units (degrees for angles): a network, or a function such as
            :func:`low_pass_light`.
        size: side in pixels that the model wants; None: any.
        spread: ``(F,)`` standard deviation of each attribute over public pictures, the unit of every distance.
        columns: which of the ``F`` columns belong to which attribute.
    """

    def __init__(
        self,
        model: Callable[[Tensor], Tensor],
        *,
        size: int | None,
        spread: Tensor,
        columns: Mapping[str, slice] = ATTRIBUTES,
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.columns = dict(columns)
        self.register_buffer("spread", spread.clone(), persistent=False)
        self.spread: Tensor
        for parameter in self.parameters():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """``{"pose": (B, 3), "expression": (B, 4), "illumination": (B, 3)}``, standardised by the public spread."""
        values = self.model(resized(images, self.size)) / self.spread
        return {name: values[:, columns] for name, columns in self.columns.items()}


@torch.no_grad()
def light_estimator(light: Callable[[Tensor], Tensor], public: Tensor, *, batch: int = 128) -> AttributeEstimator:
    """An estimator of illumination alone, standardised by its spread over public pictures.

    Args:
        light: ``images -> (B, F)``: :func:`low_pass_light` or :func:`harmonic_light`; neither needs a network.
        public: ``(N, 3, H, W) uint8``.
        batch: pictures looked at together.

    Raises:
        InvalidSetting: some coefficient is the same in all pictures, so that nothing can be measured in its spread.

    >>> public = torch.randint(256, (9, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    >>> light_estimator(low_pass_light, public)(public[:1] / 255)["illumination"].shape
    torch.Size([1, 16])
    """
    values = torch.cat([light(part.float() / 255) for part in public.split(batch)])
    spread = values.std(0, correction=0)
    if float(spread.min()) <= 1e-6:
        raise InvalidSetting("public", "hold pictures whose light differs", f"a spread of {float(spread.min()):g}")
    return AttributeEstimator(light, size=None, spread=spread, columns={"illumination": slice(0, values.shape[1])})


def luminance(images: Tensor) -> Tensor:
    """``(B, 1, H, W)`` luma of ``images (B, 3, H, W)`` by ITU-R BT.601.

    >>> luminance(torch.ones(1, 3, 1, 1)).item()
    1.0
    """
    weights = images.new_tensor([0.299, 0.587, 0.114])[:, None, None]
    return (images * weights).sum(1, keepdim=True)


def low_pass_light(images: Tensor, *, grid: int = 4) -> Tensor:
    """``(B, grid * grid)`` mean luminance on a coarse grid: illumination without a network, for any photographs.

    >>> import torch
    >>> low_pass_light(torch.ones(1, 3, 8, 8), grid=2)
    tensor([[1., 1., 1., 1.]])
    """
    return nn.functional.adaptive_avg_pool2d(luminance(images), grid).flatten(1)


def harmonic_light(images: Tensor) -> Tensor:
    r"""``(B, 9)`` coefficients of second-order spherical harmonics: light as on a sphere, without a network.

    The largest centred ellipse is taken for a sphere with normals :math:`n = (x, y, \sqrt{1 - x^2 - y^2})`, ``x`` to
    the right and ``y`` upward, and its luminance fitted, by least squares, with :func:`harmonics` of ``n``: the light
    that a matt body reflects is close to their span. A face is no sphere, so read differences, not directions.

    Paper: Basri, Jacobs, "Lambertian Reflectance and Linear Subspaces" (2003, IEEE TPAMI 25(2)).

    Raises:
        InvalidSetting: for images too small to show nine coefficients.

    >>> import torch
    >>> light = harmonic_light(torch.full((1, 3, 16, 16), 0.5))[0]
    >>> round(light[0].item(), 4), bool(light[1:].abs().max() < 1e-4)
    (0.5, True)
    """
    height, width = images.shape[-2:]
    if min(height, width) < 8:
        raise InvalidSetting("images", "be at least 8 pixels wide and high", (height, width))
    fit, inside = _sphere_fit(height, width)
    coefficients: Tensor = luminance(images)[:, 0, inside.to(images.device)] @ fit.to(images).T
    return coefficients


def harmonics(normals: Tensor) -> Tensor:
    r"""Spherical harmonics up to second order, without their constants: unit ``normals (..., 3)`` to ``(..., 9)``.

    .. math:: 1,\; x,\; y,\; z,\; xy,\; xz,\; yz,\; x^2 - y^2,\; 3z^2 - 1

    >>> harmonics(torch.tensor([0.0, 0.0, 1.0]))
    tensor([1., 0., 0., 1., 0., 0., 0., 0., 2.])
    """
    x, y, z = normals.unbind(-1)
    return torch.stack([torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], dim=-1)


@lru_cache(maxsize=8)
def _sphere_fit(height: int, width: int) -> tuple[Tensor, Tensor]:
    """Least squares ``(9, n)`` from the ``n`` pixels inside the ellipse, and where these are, ``(H, W)``."""
    rows = 1 - (2 * torch.arange(height, dtype=torch.float64) + 1) / height
    columns = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    inside = x.square() + y.square() < 1
    x, y = x[inside], y[inside]
    basis = harmonics(torch.stack([x, y, (1 - x.square() - y.square()).sqrt()], dim=-1))
    return torch.linalg.pinv(basis), inside
