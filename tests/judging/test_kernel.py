import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import poly_mmd

from diffaudit.judging import TooFewSamplesError, kernel_discrepancies, kernel_distance, paired_kernel_discrepancies


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


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
    monkeypatch.setattr("diffaudit.judging.kernel._ROWS_AT_ONCE", 7)
    assert torch.allclose(kernel_distance(features, references), whole)


def test_kernel_distance_is_unbiased() -> None:
    draws = torch.stack([kernel_distance(normal(50, 4, seed=s), normal(50, 4, seed=1000 + s)) for s in range(200)])
    assert abs(draws.mean()) < 3 * draws.std() / 200**0.5
    assert draws.min() < 0


def test_features_far_apart_are_far_apart() -> None:
    features = normal(60, 4)
    near, far = (kernel_distance(features, normal(60, 4, seed=1) + shift, minimum=60) for shift in (0.1, 2.0))
    assert near < far


def test_kernel_distance_is_refused_under_the_minimum() -> None:
    with pytest.raises(TooFewSamplesError, match="`features` should have at least 50 rows for the kernel distance"):
        kernel_distance(normal(49, 4), normal(50, 4))
    with pytest.raises(TooFewSamplesError, match="at least 2 rows"):
        kernel_distance(normal(1, 4), normal(50, 4), minimum=1)


def test_features_must_fit_and_be_finite() -> None:
    with pytest.raises(ValueError, match=r"`references` should have 4 columns, .* Found 3."):
        kernel_distance(normal(60, 4), normal(60, 3), minimum=10)
    with pytest.raises(ValueError, match=r"`features` should hold finite numbers. Found 60 that are not."):
        kernel_distance(normal(60, 1) * torch.nan, normal(60, 1), minimum=10)
    with pytest.raises(ValueError, match="`features` should be a floating matrix"):
        kernel_distance(torch.zeros(60), normal(60, 1), minimum=10)


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
    monkeypatch.setattr("diffaudit.judging.kernel._ROWS_AT_ONCE", 7)
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


def test_paired_discrepancies_pair_by_pair() -> None:
    images, references = normal(5, 3), normal(5, 3, seed=1)

    def kernel(x: Tensor, y: Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    expected = [
        sum(
            kernel(images[a], images[b])
            + kernel(references[a], references[b])
            - kernel(images[a], references[b])
            - kernel(images[b], references[a])
            for b in range(5)
            if b != a
        )
        / 4
        for a in range(5)
    ]
    found = paired_kernel_discrepancies(images, references, minimum=2)
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))


def test_images_that_are_their_references_are_at_distance_zero() -> None:
    assert paired_kernel_discrepancies(normal(60, 4), normal(60, 4)).tolist() == [0.0] * 60


def test_of_pairs_the_plain_kernel_distance_is_too_small() -> None:
    """Every image is its reference with noise, and all are of one distribution, so 0 is expected."""
    ours, plain = [], []
    for study in range(200):
        references, other = normal(50, 3, seed=2 * study), normal(50, 3, seed=2 * study + 1)
        images = 0.8 * references + 0.6 * other
        ours.append(paired_kernel_discrepancies(images, references).mean())
        plain.append(kernel_distance(images, references))
    error = torch.stack(ours).std() / 200**0.5
    assert abs(torch.stack(ours).mean()) < 3 * error
    assert torch.stack(plain).mean() < -5 * error


def test_paired_discrepancies_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = normal(60, 5), 0.2 + normal(60, 5, seed=1)
    whole = paired_kernel_discrepancies(*pairs)
    monkeypatch.setattr("diffaudit.judging.kernel._ROWS_AT_ONCE", 7)
    assert torch.allclose(paired_kernel_discrepancies(*pairs), whole)


def test_what_is_no_pair_is_refused() -> None:
    with pytest.raises(ValueError, match=r"one row an image, 60 in all. Found 50"):
        paired_kernel_discrepancies(normal(60, 4), normal(50, 4))
    with pytest.raises(TooFewSamplesError, match=r"at least 50 rows for the kernel distance. Found 49"):
        paired_kernel_discrepancies(normal(49, 4), normal(49, 4))
