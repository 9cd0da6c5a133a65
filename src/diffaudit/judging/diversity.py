"""Diversity and attributes: do the images of a class differ, and do they keep what their sources gave?

Diversity belongs to a class. It is returned per image, each class's value repeated for its images, so that it stands
in an image's record beside everything else and is averaged, clustered by class, like everything else.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffaudit.judging._checks import require_finite, require_labels, require_rows
from diffaudit.judging.features import unit_embeddings


def euclidean(first: Tensor, second: Tensor) -> Tensor:
    """Return the Euclidean distance of each pair.

    Shapes ``(P, ...), (P, ...) -> (P,)``, range [0, inf).

    >>> import torch
    >>> euclidean(torch.zeros(1, 2), torch.tensor([[3.0, 4.0]]))
    tensor([5.])
    """
    distances: Tensor = torch.linalg.vector_norm((first - second).flatten(start_dim=1), dim=1)
    return distances


def pairwise_distance(
    images: Tensor, labels: Tensor, distance: Callable[[Tensor, Tensor], Tensor] = euclidean
) -> Tensor:
    r"""Return the mean distance between the images of each class, repeated for each of its images.

    .. math:: \frac{2}{n_y (n_y - 1)} \sum_{a < b} d(x_a, x_b)

    Shapes ``(B, ...), (B,) -> (B,)``; rows may be images, features or embeddings, and ``distance`` takes them in pairs,
    ``(P, ...), (P, ...) -> (P,)``. Range [0, inf) and units are those of ``distance``; higher is more diverse. It does
    not depend on the number of images.

    Paper: Zhu, Zhang, Pathak, Darrell, Efros, Wang, Shechtman, "Toward Multimodal Image-to-Image Translation" (2017,
    arXiv:1711.11586), which measures diversity as the mean perceptual distance of pairs.

    Raises:
        ValueError: for a class with one image, which has no pairs, and for numbers that are not finite.

    >>> import torch
    >>> pairwise_distance(torch.tensor([[0.0], [1.0], [3.0], [9.0], [9.0]]), torch.tensor([4, 4, 4, 8, 8]))
    tensor([2., 2., 2., 0., 0.])
    """
    require_finite("images", images)
    values = []
    for rows in _classes(labels, len(images)):
        first, second = torch.combinations(rows, 2).unbind(dim=1)
        values.append(distance(images[first], images[second]).mean())
    return _repeated(values, labels)


def embedding_variance(embeddings: Tensor, labels: Tensor) -> Tensor:
    r"""Return the variance of each class's unit embeddings, repeated for each of its images.

    .. math:: 1 - \left\| \frac{1}{n_y} \sum_{b : y_b = y} e_b \right\|^2

    Shapes ``(B, D), (B,) -> (B,)``, range [0, 1]; higher is more diverse. It equals the mean of :math:`1 - \cos` over
    the pairs of a class times :math:`(n_y - 1)/n_y`, so compare it between equal numbers of images per class.

    Paper: Mardia and Jupp, "Directional Statistics" (2000), where ``1 - ||mean||`` without the square is the circular
    variance.

    Raises:
        ValueError: for a class with one image, whose variance would always be 0, for embeddings of length 0 and for
            numbers that are not finite.

    >>> import torch
    >>> embedding_variance(torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.0]]), torch.tensor([0, 0, 1, 1]))
    tensor([0.5000, 0.5000, 0.0000, 0.0000])
    """
    units = unit_embeddings(embeddings)
    means = [units[rows].mean(dim=0) for rows in _classes(labels, len(units))]
    return _repeated([(1 - mean.square().sum()).clamp(min=0) for mean in means], labels)


def factor_error(factors: Tensor, truths: Tensor, scale: Tensor) -> Tensor:
    r"""Return the mean standardised absolute error over the factors, per image.

    .. math:: \frac{1}{F} \sum_f \frac{|v_{bf} - v^*_{bf}|}{s_f}

    Shapes ``(B, F), (B, F), (F,) -> (B,)``, range [0, inf), in spreads; lower is nearer. ``scale`` is each factor's
    spread (standard deviation) over public data, so that degrees do not drown coefficients. An image of another,
    independent, normal identity scores ``2 / sqrt(pi) = 1.13`` on average.

    Raises:
        ValueError: for shapes that differ, a scale that is not positive and numbers that are not finite.

    >>> import torch
    >>> factor_error(torch.tensor([[1.0, 30.0]]), torch.tensor([[0.0, 10.0]]), torch.tensor([1.0, 10.0]))
    tensor([1.5000])
    """
    require_rows("factors", factors)
    require_rows("truths", truths, columns=factors.shape[1])
    if len(truths) != len(factors):
        raise ValueError(f"`truths` should have one row per image, {len(factors)} in all. Found {len(truths)}.")
    require_finite("scale", scale)
    if scale.shape != (factors.shape[1],) or not (scale > 0).all():
        raise ValueError(
            f"`scale` should be one positive spread per factor, {factors.shape[1]} in all. "
            f"Found shape {tuple(scale.shape)}, smallest {scale.min().item():g}. Leave out factors that never vary."
        )
    return ((factors - truths).abs() / scale).mean(dim=1)


def _classes(labels: Tensor, rows: int) -> list[Tensor]:
    """Return each class's rows, in the order of the labels; refuse a class with one image."""
    require_labels("labels", labels, rows)
    members = [(labels == label).nonzero()[:, 0] for label in labels.unique()]
    for alone in (rows for rows in members if len(rows) < 2):
        raise ValueError(
            f"`labels` should hold every class at least twice. Found class {labels[alone[0]].item()} once. "
            "Make two or more images per class, or leave diversity out."
        )
    return members


def _repeated(values: list[Tensor], labels: Tensor) -> Tensor:
    return torch.stack(values)[labels.unique(return_inverse=True)[1]]
