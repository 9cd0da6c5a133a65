"""Fidelity: how far is the distribution of the images from that of real ones, as Gaussians?

The features of the images and of the references come from one encoder; only where that is the Inception network of its
paper is the distance the FID, and named so. Below a stated number of samples it is refused (``TooFewSamplesError``)
rather than answered with noise.
"""

from __future__ import annotations

import torch
from torch import Tensor

from diffaudit.judging._checks import require_rows, require_samples


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
        TooFewSamplesError: for fewer rows than stated in either sample: the kernel distance needs
            fewer.
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


def _moments(sample: Tensor) -> tuple[Tensor, Tensor]:
    sample = sample.detach().to("cpu", torch.float64)
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
