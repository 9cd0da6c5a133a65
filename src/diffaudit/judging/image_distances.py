"""Distances between two pictures: how far did an attack move each image, by the measures its field reports?

Images are ``(B, 3, H, W)`` in [0, 1]; one value per image, never a mean over the batch. The Euclidean distance is
:func:`~diffaudit.judging.diversity.euclidean`.
"""

from __future__ import annotations

import kornia
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from diffaudit.errors import InvalidSetting
from diffaudit.judging._checks import require_finite

WINDOW = 11
"""Side of the window of :func:`structural_similarity`, in pixels."""


def structural_similarity(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the mean structural similarity of each pair.

    .. math:: \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}
        {(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}

    in Gaussian windows of 11 pixels (deviation 1.5), with :math:`c_1 = 0.01^2` and :math:`c_2 = 0.03^2`, averaged over
    the windows that lie within the picture and over the channels. Shapes ``(B, 3, H, W), (B, 3, H, W) -> (B,)``, range
    [-1, 1]; 1 is the same picture. Torchmetrics computes it.

    Paper: Wang, Bovik, Sheikh, Simoncelli, "Image Quality Assessment: From Error Visibility to Structural Similarity"
    (2004).

    Raises:
        InvalidSetting: for shapes that differ or sides below 11 pixels, or values outside [0, 1].

    >>> structural_similarity(torch.zeros(1, 3, 11, 11), torch.zeros(1, 3, 11, 11))
    tensor([1.])
    """
    _require_pictures(first, second)
    if min(first.shape[2:]) < WINDOW:
        rule = f"have sides of at least {WINDOW} pixels for the structural similarity"
        raise InvalidSetting("images", rule, tuple(first.shape[2:]), "Judge larger images.")
    found = structural_similarity_index_measure(first.double(), second.double(), data_range=1.0, reduction="none")
    return torch.as_tensor(found).reshape(len(first)).to(first.dtype)


def signal_to_noise(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the peak signal to noise ratio of each pair, in dB.

    .. math:: -10 \log_{10} \frac{1}{3HW} \|x_b - x'_b\|^2

    Shapes ``(B, 3, H, W), (B, 3, H, W) -> (B,)``, range [0, inf]: infinity where the two are the same. Higher is
    nearer. Torchmetrics computes it.

    Raises:
        InvalidSetting: for shapes that differ or values outside [0, 1].

    >>> signal_to_noise(torch.zeros(1, 3, 2, 2), torch.full((1, 3, 2, 2), 0.1)).round(decimals=2)
    tensor([20.])
    """
    _require_pictures(first, second)
    found: Tensor = peak_signal_noise_ratio(
        first.double(), second.double(), data_range=1.0, reduction="none", dim=(1, 2, 3)
    )
    return found.to(first.dtype)


def largest_difference(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the largest absolute difference of a value, :math:`\|x_b - x'_b\|_\infty`.

    Shapes ``(B, 3, H, W), (B, 3, H, W) -> (B,)``, range [0, 1]; of 8-bit pictures a multiple of 1/255.

    Raises:
        InvalidSetting: for shapes that differ or values outside [0, 1].

    >>> largest_difference(torch.zeros(1, 3, 1, 1), torch.tensor([0.25, 0.5, 0.0]).view(1, 3, 1, 1))
    tensor([0.5000])
    """
    _require_pictures(first, second)
    return (first - second).abs().flatten(1).amax(1)


def colour_difference(first: Tensor, second: Tensor) -> Tensor:
    r"""Return the mean colour difference of each pair, Delta E of 1976, over the pixels.

    .. math:: \frac{1}{HW} \sum_p \sqrt{\Delta L_p^{*2} + \Delta a_p^{*2} + \Delta b_p^{*2}}

    Shapes ``(B, 3, H, W), (B, 3, H, W) -> (B,)``, range [0, inf): 100 from black to white, about 2.3 is just
    noticeable. Images are taken as sRGB under D65; kornia turns them into CIELAB. This is not CIEDE2000, which weighs
    hues and chroma anew and which no library of the core computes.

    Paper: Mahy, Van Eycken, Oosterlinck, "Evaluation of Uniform Color Spaces Developed after the Adoption of CIELAB and
    CIELUV" (1994), for what is noticeable.

    Raises:
        InvalidSetting: for shapes that differ or values outside [0, 1].

    >>> colour_difference(torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)).round(decimals=1)
    tensor([100.])
    """
    _require_pictures(first, second)
    difference = kornia.color.rgb_to_lab(first) - kornia.color.rgb_to_lab(second)
    distances: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distances.mean((1, 2))


def _require_pictures(first: Tensor, second: Tensor) -> None:
    """Refuse what is not two batches of pictures, pair by pair of one size."""
    if first.ndim != 4 or first.shape[1] != 3 or first.shape != second.shape or not first.is_floating_point():
        found = f"{tuple(first.shape)} of {first.dtype}, {tuple(second.shape)} of {second.dtype}"
        rule = "be two floating batches (B, 3, H, W) of one shape"
        raise InvalidSetting("images", rule, found, "Divide 8-bit images by 255.")
    for images in (first, second):
        require_finite("images", images)
        low, high = images.aminmax()
        if low < 0 or high > 1:
            raise InvalidSetting("images", "lie in [0, 1]", (float(low), float(high)), "Clamp what a decoder gives.")
