"""Fidelity: how far is the distribution of the images from that of real ones, under the cubic kernel?

All distances take features of the images and of the references from one encoder; only where that encoder is the
Inception network of its paper is the distance the KID, and named so. Below a stated number of samples each refuses
(``TooFewSamplesError``) rather than answer with noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffaudit.judging._checks import TooFewSamplesError, require_labels, require_samples

_ROWS_AT_ONCE = 1024


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


def paired_kernel_discrepancies(features: Tensor, references: Tensor, *, minimum: int = 50) -> Tensor:
    r"""Return what each pair adds to the kernel distance, where every image was made from the reference beside it.

    .. math:: h_a = \frac{1}{N - 1} \sum_{b \ne a} \left( k(x_a, x_b) + k(y_a, y_b) - k(x_a, y_b) - k(x_b, y_a) \right)

    Shapes ``(N, D), (N, D) -> (N,)``, float64 on the CPU; ``k`` is that of :func:`kernel_distance`. The mean is the
    squared discrepancy between the images and the references, unbiased though they are paired: an image is never held
    against its own reference, to which it is nearer than to a stranger's, and which :func:`kernel_distance` would
    count. Zero for images that are their references.

    Paper: Gretton, Borgwardt, Rasch, Schoelkopf, Smola, "A Kernel Two-Sample Test" (2012), equation 4.

    Raises:
        TooFewSamplesError: for fewer rows than stated.
        ValueError: for samples that are no pairs, for shapes that do not fit and for numbers that are not finite.

    >>> import torch
    >>> paired_kernel_discrepancies(torch.tensor([[0.0], [1.0]]), torch.tensor([[1.0], [0.0]]), minimum=2)
    tensor([-7., -7.], dtype=torch.float64)
    """
    require_samples("kernel distance", features, references, least=max(minimum, 2), advice="Judge more images.")
    if len(features) != len(references):
        raise ValueError(
            f"`references` should hold one row an image, {len(features)} in all. Found {len(references)}. "
            "Pair each image with what it was made from."
        )
    first, second = _double(features), _double(references)
    sums = torch.cat([_pair_sums(rows, first, second) for rows in torch.arange(len(first)).split(_ROWS_AT_ONCE)])
    return sums / (len(first) - 1)


def _double(features: Tensor) -> Tensor:
    return features.detach().to("cpu", torch.float64)


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


def _pair_sums(rows: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the sum over the other pairs of what they and the pairs ``rows`` add to the discrepancy."""
    x, y = first[rows], second[rows]
    dimension = first.shape[1]
    within = _kernel(x @ first.T, dimension) + _kernel(y @ second.T, dimension)
    across = _kernel(x @ second.T, dimension) + _kernel(y @ first.T, dimension)
    added = within - across
    return added.sum(dim=1) - added[torch.arange(len(rows)), rows]
