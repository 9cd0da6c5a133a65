"""Fidelity: how far is the distribution of the images from that of real ones?

All distances take features ``(B, D)`` of the images and ``(N, D)`` of the references from one encoder; only where that
encoder is the Inception network of their papers are they FID and KID, and named so. Below a stated number of samples
each refuses (``TooFewSamplesError``) rather than answer with noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffaudit.judging._checks import TooFewSamplesError, require_labels, require_rows, require_samples

_ROWS_AT_ONCE = 1024


def frechet_distance(features: Tensor, references: Tensor, *, minimum: int = 2048) -> Tensor:
    r"""Return the Frechet distance between the Gaussians fitted to the two samples.

    Shapes ``(B, D), (N, D) -> ()``, float64 on the CPU, range [0, inf); lower is nearer. The means and covariances
    (divided by the sample size less one) go to :func:`gaussian_frechet_distance`. Its bias falls only as ``1/N`` and
    differs between generators, so both samples need ``minimum`` rows, and never fewer than ``D + 1``, without which
    the covariances are singular.

    Papers: Heusel, Ramsauer, Unterthiner, Nessler, Hochreiter, "GANs Trained by a Two Time-Scale Update Rule Converge
    to a Local Nash Equilibrium" (2017, arXiv:1706.08500); Chong and Forsyth, "Effectively Unbiased FID and Inception
    Score and where to find them" (2019, arXiv:1911.07023), for the bias.

    Raises:
        TooFewSamplesError: for fewer rows than stated in either sample: :func:`kernel_distance` needs fewer.
        ValueError: for shapes that do not fit and numbers that are not finite.

    >>> import torch
    >>> references = torch.tensor([[0.0], [2.0], [4.0]])
    >>> frechet_distance(references + 3, references, minimum=2)
    tensor(9., dtype=torch.float64)
    """
    require_rows("features", features)
    least = max(minimum, features.shape[1] + 1)
    advice = "Judge more images, or report the kernel distance instead."
    require_samples("Frechet distance", features, references, least=least, advice=advice)
    features, references = _double(features), _double(references)
    return gaussian_frechet_distance(*_moments(features), *_moments(references))


def gaussian_frechet_distance(
    mean: Tensor, covariance: Tensor, reference_mean: Tensor, reference_covariance: Tensor
) -> Tensor:
    r"""Return the Frechet (2-Wasserstein) distance between two Gaussians, squared, as FID has it.

    .. math:: \|\mu - \nu\|^2 + \operatorname{tr}\left(\Sigma + \Lambda - 2 (\Sigma \Lambda)^{1/2}\right), \quad
        \operatorname{tr}\left((\Sigma \Lambda)^{1/2}\right) = \left\|\Sigma^{1/2} \Lambda^{1/2}\right\|_*

    Shapes ``(D,), (D, D), (D,), (D, D) -> ()``, range [0, inf). The right-hand form (the sum of singular values) needs
    no root of a product that is not symmetric, so that near-singular covariances give no complex numbers.

    Paper: Dowson and Landau, "The Frechet Distance between Multivariate Normal Distributions" (1982).

    Raises:
        ValueError: for a covariance that has a negative eigenvalue beyond rounding.

    >>> import torch
    >>> one = torch.eye(2, dtype=torch.float64)
    >>> gaussian_frechet_distance(one[0], 4 * one, one[1], 9 * one)
    tensor(4., dtype=torch.float64)
    """
    product = _root("covariance", covariance) @ _root("reference_covariance", reference_covariance)
    traces: Tensor = covariance.trace() + reference_covariance.trace() - 2 * torch.linalg.svdvals(product).sum()
    return ((mean - reference_mean).square().sum() + traces).clamp(min=0)


def kernel_distance(features: Tensor, references: Tensor, *, minimum: int = 50) -> Tensor:
    r"""Return the unbiased squared maximum mean discrepancy under the cubic kernel, over the whole samples.

    .. math:: \frac{\sum_{a \ne b} k(x_a, x_b)}{B(B-1)} + \frac{\sum_{a \ne b} k(y_a, y_b)}{N(N-1)}
        - \frac{2 \sum_{a, b} k(x_a, y_b)}{BN}, \quad k(x, y) = \left(\frac{x^\top y}{D} + 1\right)^3

    Shapes ``(B, D), (N, D) -> ()``, float64 on the CPU. Lower is nearer, and 0 is expected of equal distributions: as
    it is unbiased, it may then come out negative. No random subsets are drawn, so it has no seed. Both samples need
    ``minimum`` rows (at least 2), for though unbiased it is noisy.

    Paper: Binkowski, Sutherland, Arbel, Gretton, "Demystifying MMD GANs" (2018, arXiv:1801.01401).

    Raises:
        TooFewSamplesError: for fewer rows than stated in either sample.
        ValueError: for shapes that do not fit and numbers that are not finite.

    >>> import torch
    >>> kernel_distance(torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0], [1.0]]), minimum=2)
    tensor(-3.5000, dtype=torch.float64)
    """
    require_samples("kernel distance", features, references, least=max(minimum, 2), advice="Judge more images.")
    features, references = _double(features), _double(references)
    across = _kernel_sum(features, references) / (len(features) * len(references))
    return _mean_kernel(features) + _mean_kernel(references) - 2 * across


def kernel_discrepancies(
    features: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor, *, minimum: int = 50
) -> Tensor:
    r"""Return, for each two classes, what they add to the kernel distance of samples that hold the same classes.

    .. math:: H_{cd} = \overline{k}(X_c, X_d) + \overline{k}(Y_c, Y_d) - \overline{k}(X_c, Y_d) - \overline{k}(X_d, Y_c)

    Shapes ``(B, D), (B,), (N, D), (N,) -> (C, C)``, float64 on the CPU, symmetric, classes ascending. A bar is the mean
    over the pairs of two classes, within a class and sample over its pairs of *different* images; ``k`` is that of
    :func:`kernel_distance`. The mean of the matrix is the squared discrepancy between the two mixtures in which every
    class weighs the same: unbiased, whatever the number of images of each class, where :func:`kernel_distance` over all
    images is not. For that one takes the images as independent, while a sample that holds as many of every class has
    fewer pairs of one class than chance would make (with 8 classes of 4 images, 10 in 100 for 12.5), and comes out too
    near. With one class the two are equal.

    Paper: as :func:`kernel_distance`; Gretton, Borgwardt, Rasch, Schoelkopf, Smola, "A Kernel Two-Sample Test" (2012).

    Raises:
        TooFewSamplesError: for fewer rows than stated in either sample, or a class with one image in either.
        ValueError: for classes that differ, for shapes that do not fit and for numbers that are not finite.

    >>> import torch
    >>> alone = torch.zeros(2, dtype=torch.long)
    >>> kernel_discrepancies(torch.tensor([[0.0], [1.0]]), alone, torch.tensor([[0.0], [1.0]]), alone, minimum=2)
    tensor([[-3.5000]], dtype=torch.float64)
    """
    require_samples("kernel distance", features, references, least=max(minimum, 2), advice="Judge more images.")
    require_labels("labels", labels, len(features))
    require_labels("reference_labels", reference_labels, len(references))
    first, second = _members("labels", labels), _members("reference_labels", reference_labels)
    if not torch.equal(labels.unique(), reference_labels.unique()):
        raise ValueError(
            f"`reference_labels` should name the classes of `labels`. Found {second.shape[1]} classes, not those "
            f"{first.shape[1]}. Compare the images of a class with references of the same class."
        )
    features, references = _double(features), _double(references)
    across = _class_means(features, first, references, second)
    return _within(features, first) + _within(references, second) - across - across.T


def _double(features: Tensor) -> Tensor:
    return features.detach().to("cpu", torch.float64)


def _moments(sample: Tensor) -> tuple[Tensor, Tensor]:
    return sample.mean(dim=0), torch.atleast_2d(sample.T.cov())


def _root(name: str, covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    if values[0] < -1e-6 * values[-1].abs():
        raise ValueError(
            f"`{name}` should be symmetric with no negative eigenvalue. Found {values[0].item():g}. "
            "Compute it in float64 from the features."
        )
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    return root


def _kernel(products: Tensor, dimension: int) -> Tensor:
    return (products / dimension + 1) ** 3


def _kernel_sum(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([_kernel(rows @ second.T, rows.shape[1]).sum() for rows in first.split(_ROWS_AT_ONCE)]).sum()


def _members(name: str, labels: Tensor) -> Tensor:
    """Return which row is of which class, as float64 ``(B, C)``; refuse a class with a single row."""
    classes, counts = labels.unique(return_counts=True)
    if (counts < 2).any():
        raise TooFewSamplesError(
            f"`{name}` should name every class twice or more for the kernel distance. "
            f"Found class {classes[counts < 2][0].item()} once. Judge more images."
        )
    members: Tensor = labels.cpu()[:, None] == classes.cpu()
    return members.double()


def _class_means(rows: Tensor, of_rows: Tensor, columns: Tensor, of_columns: Tensor) -> Tensor:
    """Return the mean kernel between each class of ``rows`` and each of ``columns``, a block of rows at a time."""
    blocks = zip(rows.split(_ROWS_AT_ONCE), of_rows.split(_ROWS_AT_ONCE), strict=True)
    sums: list[Tensor] = [
        members.T @ (_kernel(part @ columns.T, columns.shape[1]) @ of_columns) for part, members in blocks
    ]
    total: Tensor = torch.stack(sums).sum(dim=0)
    return total / (of_rows.sum(dim=0)[:, None] * of_columns.sum(dim=0))


def _within(sample: Tensor, members: Tensor) -> Tensor:
    """Return the mean kernel between the classes of one sample, within each over pairs of different rows."""
    counts = members.sum(dim=0)
    means = _class_means(sample, members, sample, members)
    own = members.T @ _kernel(sample.square().sum(dim=1), sample.shape[1])
    between_others: Tensor = (means.diagonal() * counts.square() - own) / (counts * (counts - 1))
    return means.diagonal_scatter(between_others)


def _mean_kernel(sample: Tensor) -> Tensor:
    """Return the mean kernel of the pairs of different rows."""
    own = _kernel(sample.square().sum(dim=1), sample.shape[1]).sum()
    return (_kernel_sum(sample, sample) - own) / (len(sample) * (len(sample) - 1))
