"""Fidelity: how far is the distribution of the images from that of real ones?

Both distances take features ``(B, D)`` of the images and ``(N, D)`` of the references from one encoder; only where that
encoder is the Inception network of their papers are they FID and KID, and named so. Below a stated number of samples
each refuses (``TooFewSamplesError``) rather than answer with noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffaudit.judging._checks import require_rows, require_samples

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


def _mean_kernel(sample: Tensor) -> Tensor:
    """Return the mean kernel of the pairs of different rows."""
    own = _kernel(sample.square().sum(dim=1), sample.shape[1]).sum()
    return (_kernel_sum(sample, sample) - own) / (len(sample) * (len(sample) - 1))
