import pytest
import torch
from scipy import linalg
from torch import Tensor
from torchmetrics.image.fid import _compute_fid

from diffaudit.judging import TooFewSamplesError, frechet_distance, gaussian_frechet_distance


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def covariance(dimension: int, seed: int) -> Tensor:
    root = normal(dimension, dimension, seed=seed)
    return root @ root.T


def sample_with(mean: Tensor, covariance: Tensor, rows: int, seed: int) -> Tensor:
    """A sample whose mean and covariance are exactly these."""
    centred = normal(rows, len(mean), seed=seed)
    centred -= centred.mean(dim=0)
    white = torch.linalg.solve_triangular(torch.linalg.cholesky(centred.T.cov()), centred.T, upper=False)
    sample: Tensor = mean + (torch.linalg.cholesky(covariance) @ white).T
    return sample


def test_gaussians_with_diagonal_covariances_in_closed_form() -> None:
    mean, reference_mean = torch.tensor([1.0, 2.0]).double(), torch.tensor([0.0, 4.0]).double()
    found = gaussian_frechet_distance(
        mean, torch.tensor([4.0, 9.0]).double().diag(), reference_mean, torch.tensor([1.0, 25.0]).double().diag()
    )
    assert found.item() == pytest.approx((1 + 4) + (2 - 1) ** 2 + (3 - 5) ** 2)


def test_samples_give_the_distance_of_their_gaussians() -> None:
    means = torch.tensor([1.0, 2.0, 0.0]).double(), torch.tensor([0.0, 4.0, 0.0]).double()
    variances = torch.tensor([4.0, 9.0, 1.0]).double().diag(), torch.tensor([1.0, 25.0, 1.0]).double().diag()
    features, references = sample_with(means[0], variances[0], 40, 0), sample_with(means[1], variances[1], 30, 1)
    assert frechet_distance(features, references, minimum=30).item() == pytest.approx(10.0)


def test_gaussians_with_any_covariances_by_scipy_and_torchmetrics() -> None:
    mean, reference_mean = normal(5, seed=1), normal(5, seed=2)
    first, second = covariance(5, 3), covariance(5, 4)
    found = gaussian_frechet_distance(mean, first, reference_mean, second).item()
    root = linalg.sqrtm((first @ second).numpy())
    expected = ((mean - reference_mean) ** 2).sum() + first.trace() + second.trace() - 2 * root.real.trace()
    assert found == pytest.approx(float(expected))
    assert found == pytest.approx(_compute_fid(mean, first, reference_mean, second).item())


def test_singular_covariances_give_a_real_number() -> None:
    line, other = torch.tensor([[1.0, 1.0], [1.0, 1.0]]).double(), torch.tensor([[1.0, 0.0], [0.0, 0.0]]).double()
    zero = torch.zeros(2).double()
    assert gaussian_frechet_distance(zero, line, zero, line).item() == pytest.approx(0.0, abs=1e-7)
    # Rank one both: the trace of the root is |u . v| = 1 for u = (1, 1) and v = (1, 0).
    assert gaussian_frechet_distance(zero, line, zero, other).item() == pytest.approx(2 + 1 - 2)


def test_frechet_distance_of_a_sample_to_itself_is_zero() -> None:
    features = normal(100, 8).float()
    assert frechet_distance(features, features.flip(0), minimum=100).item() == pytest.approx(0.0, abs=1e-9)


def test_features_far_apart_are_far_apart() -> None:
    features = normal(60, 4)
    near, far = (frechet_distance(features, normal(60, 4, seed=1) + shift, minimum=60) for shift in (0.1, 2.0))
    assert near < far


def test_frechet_distance_is_refused_under_the_minimum() -> None:
    with pytest.raises(
        TooFewSamplesError, match=r"`features` should have at least 2048 rows for the Frechet distance. Found 320."
    ):
        frechet_distance(normal(320, 16), normal(4096, 16))
    with pytest.raises(TooFewSamplesError, match="`references` should have at least 17 rows"):
        frechet_distance(normal(20, 16), normal(16, 16), minimum=2)


def test_features_must_fit_and_be_finite() -> None:
    with pytest.raises(ValueError, match=r"`references` should have 4 columns, .* Found 3."):
        frechet_distance(normal(60, 4), normal(60, 3), minimum=10)
    with pytest.raises(ValueError, match=r"`features` should hold finite numbers. Found 60 that are not."):
        frechet_distance(normal(60, 1) * torch.nan, normal(60, 1), minimum=10)
    with pytest.raises(ValueError, match="`features` should be a floating matrix"):
        frechet_distance(torch.zeros(60), normal(60, 1), minimum=10)


def test_what_is_no_covariance_is_refused() -> None:
    one = torch.eye(2)
    with pytest.raises(ValueError, match=r"`covariance` should be symmetric with no negative eigenvalue. Found -1."):
        gaussian_frechet_distance(one[0], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), one[0], one)
