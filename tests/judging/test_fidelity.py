from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from scipy import linalg
from torch import Tensor
from torchmetrics.image.fid import _compute_fid
from torchmetrics.image.kid import poly_mmd

from diffaudit.judging import (
    TooFewSamplesError,
    frechet_distance,
    gaussian_frechet_distance,
    kernel_discrepancies,
    kernel_distance,
)


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


def test_kernel_distance_pair_by_pair() -> None:
    features, references = normal(6, 3), 0.5 + normal(4, 3, seed=1)

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = sum(kernel(features[a], features[b]) for a in range(6) for b in range(6) if a != b) / 30
    without = sum(kernel(references[a], references[b]) for a in range(4) for b in range(4) if a != b) / 12
    across = sum(kernel(x, y) for x in features for y in references) / 24
    assert kernel_distance(features, references, minimum=2).item() == pytest.approx(within + without - 2 * across)


def test_kernel_distance_is_torchmetrics() -> None:
    features, references = normal(60, 5), 0.2 + normal(60, 5, seed=1)
    assert kernel_distance(features, references).item() == pytest.approx(poly_mmd(references, features).item())


def test_kernel_distance_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    features, references = normal(60, 5), 0.2 + normal(70, 5, seed=1)
    whole = kernel_distance(features, references)
    monkeypatch.setattr("diffaudit.judging.fidelity._ROWS_AT_ONCE", 7)
    assert torch.allclose(kernel_distance(features, references), whole)


def test_kernel_distance_is_unbiased() -> None:
    draws = torch.stack([kernel_distance(normal(50, 4, seed=s), normal(50, 4, seed=1000 + s)) for s in range(200)])
    assert abs(draws.mean()) < 3 * draws.std() / 200**0.5
    assert draws.min() < 0


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_features_far_apart_are_far_apart(distance: Callable[..., Tensor]) -> None:
    features = normal(60, 4)
    near, far = (distance(features, normal(60, 4, seed=1) + shift, minimum=60) for shift in (0.1, 2.0))
    assert near < far


def test_frechet_distance_is_refused_under_the_minimum() -> None:
    with pytest.raises(
        TooFewSamplesError, match=r"`features` should have at least 2048 rows for the Frechet distance. Found 320."
    ):
        frechet_distance(normal(320, 16), normal(4096, 16))
    with pytest.raises(TooFewSamplesError, match="`references` should have at least 17 rows"):
        frechet_distance(normal(20, 16), normal(16, 16), minimum=2)


def test_kernel_distance_is_refused_under_the_minimum() -> None:
    with pytest.raises(TooFewSamplesError, match="`features` should have at least 50 rows for the kernel distance"):
        kernel_distance(normal(49, 4), normal(50, 4))
    with pytest.raises(TooFewSamplesError, match="at least 2 rows"):
        kernel_distance(normal(1, 4), normal(50, 4), minimum=1)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_features_must_fit_and_be_finite(distance: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"`references` should have 4 columns, .* Found 3."):
        distance(normal(60, 4), normal(60, 3), minimum=10)
    with pytest.raises(ValueError, match=r"`features` should hold finite numbers. Found 60 that are not."):
        distance(normal(60, 1) * torch.nan, normal(60, 1), minimum=10)
    with pytest.raises(ValueError, match="`features` should be a floating matrix"):
        distance(torch.zeros(60), normal(60, 1), minimum=10)


def test_what_is_no_covariance_is_refused() -> None:
    one = torch.eye(2)
    with pytest.raises(ValueError, match=r"`covariance` should be symmetric with no negative eigenvalue. Found -1."):
        gaussian_frechet_distance(one[0], torch.tensor([[0.0, 1.0], [1.0, 0.0]]), one[0], one)


def drawn(classes: int, each: int, seed: int, *, people: int) -> tuple[Tensor, Tensor]:
    """``each`` images of every class around its own centre; the centres follow from ``people`` alone."""
    centres = normal(classes, 3, seed=people)
    images = centres.repeat_interleave(each, 0) + 0.3 * normal(classes * each, 3, seed=seed)
    return images, torch.arange(classes).repeat_interleave(each)


def test_discrepancies_pair_by_pair() -> None:
    features, references = normal(7, 3), normal(5, 3, seed=1)
    labels, reference_labels = torch.tensor([4, 9, 4, 9, 4, 9, 9]), torch.tensor([9, 9, 4, 4, 4])

    def mean(first: Tensor, ones: Tensor, one: int, second: Tensor, others: Tensor, other: int) -> float:
        pairs = [
            float((first[i] @ second[j] / 3 + 1) ** 3)
            for i in range(len(first))
            for j in range(len(second))
            if ones[i] == one and others[j] == other and not (first is second and i == j)
        ]
        return sum(pairs) / len(pairs)

    expected = [
        [
            mean(features, labels, c, features, labels, d)
            + mean(references, reference_labels, c, references, reference_labels, d)
            - mean(features, labels, c, references, reference_labels, d)
            - mean(features, labels, d, references, reference_labels, c)
            for d in (4, 9)
        ]
        for c in (4, 9)
    ]
    found = kernel_discrepancies(features, labels, references, reference_labels, minimum=2)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_discrepancy_of_one_class_is_the_kernel_distance() -> None:
    features, references = normal(60, 4), 1 + normal(50, 4, seed=1)
    found = kernel_discrepancies(features, torch.zeros(60).long(), references, torch.zeros(50).long())
    assert found.item() == pytest.approx(kernel_distance(features, references).item())


def test_discrepancies_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = (*drawn(5, 12, 1, people=0), *drawn(5, 10, 2, people=0))
    whole = kernel_discrepancies(*samples)
    monkeypatch.setattr("diffaudit.judging.fidelity._ROWS_AT_ONCE", 7)
    assert torch.allclose(kernel_discrepancies(*samples), whole)


def test_as_many_images_of_every_class_make_the_plain_kernel_distance_too_small() -> None:
    """Both samples are of the same people, so 0 is expected; pairs of one class are fewer than chance would make."""
    ours, plain = [], []
    for study in range(150):
        images, labels = drawn(8, 4, 2 * study, people=study)
        photographs, people = drawn(8, 8, 2 * study + 1, people=study)
        ours.append(kernel_discrepancies(images, labels, photographs, people, minimum=2).mean())
        plain.append(kernel_distance(images, photographs, minimum=2))
    error = torch.stack(ours).std() / 150**0.5
    assert abs(torch.stack(ours).mean()) < 3 * error
    assert torch.stack(plain).mean() < -5 * error


def test_discrepancies_refuse_what_cannot_be_paired() -> None:
    images, labels = drawn(5, 12, 1, people=0)
    once = torch.cat([labels[:-1], torch.tensor([7])])
    with pytest.raises(TooFewSamplesError, match=r"at least 50 rows for the kernel distance\. Found 24"):
        kernel_discrepancies(images[:24], labels[:24], images, labels)
    with pytest.raises(TooFewSamplesError, match=r"`labels` should name every class twice.*Found class 7 once"):
        kernel_discrepancies(images, once, images, labels)
    with pytest.raises(ValueError, match="`reference_labels` should name the classes"):
        kernel_discrepancies(images, labels, images, labels + 1)
    with pytest.raises(ValueError, match="`labels` should be one integer per image"):
        kernel_discrepancies(images, labels[1:], images, labels)
