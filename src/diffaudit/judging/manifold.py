"""Manifolds: do the images lie where real ones do, and do they reach everywhere real ones are?

Each sample's manifold is the union of balls around its points that reach to the k-th nearest other point. Features
``(B, D)`` of the images and ``(N, D)`` of the references come from one encoder. The answers are per image or per
reference, so that their means get clustered intervals; those intervals take the manifolds themselves as given. Below a
stated number of samples each refuses (``TooFewSamplesError``) rather than answer with noise.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from diffaudit.judging._checks import require_samples
from diffaudit.judging.features import euclidean_distances

_ROWS_AT_ONCE = 1024


def precision(features: Tensor, references: Tensor, *, k: int = 3, minimum: int = 50) -> Tensor:
    r"""Return whether each image lies within the reference manifold: nearer to a reference than its k-th neighbour.

    .. math:: \exists n : \|x_b - y_n\| \le \mathrm{NND}_k(y_n)

    Shapes ``(B, D), (N, D) -> (B,)``, boolean; the mean is the precision, higher is better. :math:`\mathrm{NND}_k` is
    the distance to the k-th nearest *other* reference. It moves with ``N``: compare at equal sample sizes.

    Paper: Kynkaanniemi, Karras, Laine, Lehtinen, Aila, "Improved Precision and Recall Metric for Assessing Generative
    Models" (2019, arXiv:1904.06991).

    Raises:
        TooFewSamplesError: for fewer than ``minimum`` (and at least ``k + 1``) rows in either sample.
        ValueError: for ``k`` below 1, shapes that do not fit and numbers that are not finite.

    >>> import torch
    >>> precision(torch.tensor([[0.5], [9.0]]), torch.tensor([[0.0], [1.0], [2.0]]), k=1, minimum=2)
    tensor([ True, False])
    """
    _require_neighbours("precision", features, references, k, minimum)
    radii = _neighbour_radii(references, k)
    return torch.cat([(distances <= radii).any(dim=1) for distances in _distances(features, references)])


def recall(features: Tensor, references: Tensor, *, k: int = 3, minimum: int = 50) -> Tensor:
    r"""Return whether each *reference* lies within the images' manifold: :func:`precision` with the samples exchanged.

    Shapes ``(B, D), (N, D) -> (N,)``, boolean; the mean is the recall, higher is better. Its rows are the references':
    cluster its interval by *their* classes.

    Paper: as :func:`precision`.

    Raises:
        TooFewSamplesError: for fewer than ``minimum`` (and at least ``k + 1``) rows in either sample.
        ValueError: for ``k`` below 1, shapes that do not fit and numbers that are not finite.

    >>> import torch
    >>> recall(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.5], [3.0]]), k=1, minimum=2)
    tensor([ True, False])
    """
    _require_neighbours("recall", features, references, k, minimum)
    radii = _neighbour_radii(features, k)
    return torch.cat([(distances <= radii).any(dim=1) for distances in _distances(references, features)])


def density(features: Tensor, references: Tensor, *, k: int = 5, minimum: int = 50) -> Tensor:
    r"""Return in how many references' neighbourhoods each image lies, over ``k``.

    .. math:: \frac{1}{k} \left|\{n : \|x_b - y_n\| \le \mathrm{NND}_k(y_n)\}\right|

    Shapes ``(B, D), (N, D) -> (B,)``, range [0, N / k]; the mean is the density, exactly 1 in expectation for equal
    distributions and above it where images crowd. One stray reference with a wide neighbourhood moves it less than
    :func:`precision`.

    Paper: Naeem, Oh, Uh, Choi, Yoo, "Reliable Fidelity and Diversity Metrics for Generative Models" (2020,
    arXiv:2002.09797).

    Raises:
        TooFewSamplesError: for fewer than ``minimum`` (and at least ``k + 1``) rows in either sample.
        ValueError: for ``k`` below 1, shapes that do not fit and numbers that are not finite.

    >>> import torch
    >>> density(torch.tensor([[0.5], [9.0]]), torch.tensor([[0.0], [1.0], [2.0]]), k=1, minimum=2)
    tensor([2., 0.])
    """
    _require_neighbours("density", features, references, k, minimum)
    radii = _neighbour_radii(references, k)
    return torch.cat([(distances <= radii).sum(dim=1) / k for distances in _distances(features, references)])


def coverage(features: Tensor, references: Tensor, *, k: int = 5, minimum: int = 50) -> Tensor:
    r"""Return whether each *reference* has an image within its own neighbourhood.

    .. math:: \min_b \|x_b - y_n\| \le \mathrm{NND}_k(y_n)

    Shapes ``(B, D), (N, D) -> (N,)``, boolean; the mean is the coverage, higher is better. Equal distributions and
    sizes give about :math:`1 - 2^{-k}`. Its rows are the references': cluster its interval by *their* classes.

    Paper: as :func:`density`.

    Raises:
        TooFewSamplesError: for fewer than ``minimum`` (and at least ``k + 1``) rows in either sample.
        ValueError: for ``k`` below 1, shapes that do not fit and numbers that are not finite.

    >>> import torch
    >>> coverage(torch.tensor([[0.5], [9.0]]), torch.tensor([[0.0], [1.0], [3.0]]), k=1, minimum=2)
    tensor([ True,  True, False])
    """
    _require_neighbours("coverage", features, references, k, minimum)
    nearest = torch.cat([distances.amin(dim=1) for distances in _distances(references, features)])
    return nearest <= _neighbour_radii(references, k)


def _require_neighbours(statistic: str, features: Tensor, references: Tensor, k: int, minimum: int) -> None:
    if k < 1:
        raise ValueError(f"`k` should be a positive integer. Found {k}.")
    require_samples(statistic, features, references, least=max(minimum, k + 1), advice="Judge more images.")


def _distances(rows: Tensor, columns: Tensor) -> Iterator[Tensor]:
    """Yield the distances of ``rows`` to ``columns``, a block of rows at a time."""
    for block in rows.split(_ROWS_AT_ONCE):
        yield euclidean_distances(block, columns)


def _neighbour_radii(sample: Tensor, k: int) -> Tensor:
    """Return each row's distance to its k-th nearest other row, ``(N, D) -> (N,)``; the nearest of all is itself."""
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for distances in _distances(sample, sample)])
