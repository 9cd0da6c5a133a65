from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffaudit.study import bootstrap
from diffaudit.study.bootstrap import cluster_bootstrap, expanded_percentiles, resampled_means

Floats = bootstrap.Floats


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def correlated_study(classes: int, images: int, rng: np.random.Generator) -> Floats:
    """Images whose mean is truly 0; half of their variance is their class's (intraclass correlation 0.5)."""
    study: Floats = (rng.normal(size=(classes, 1)) + rng.normal(size=(classes, images))).ravel()
    return study


def coverage(studies: int, classes: int, images: int, *, clustered: bool = True) -> float:
    rng = generator(1)
    labels = np.repeat(np.arange(classes), images) if clustered else np.arange(classes * images)
    inside = 0
    for _ in range(studies):
        study = correlated_study(classes, images, rng)
        interval = cluster_bootstrap(study, labels, resamples=1_000, generator=rng)
        assert interval is not None
        inside += interval[0] <= 0 <= interval[1]
    return inside / studies


def test_two_classes_by_hand() -> None:
    means = resampled_means([0.0, 2.0, 4.0, 6.0], ["a", "a", "b", "b"], resamples=20_000, generator=generator())
    found, counts = np.unique(means, return_counts=True)
    assert found.tolist() == [1.0, 3.0, 5.0]
    assert counts / 20_000 == pytest.approx([0.25, 0.5, 0.25], abs=0.02)


def test_classes_of_different_size_by_enumeration() -> None:
    values, clusters = np.array([1.0, 2.0, 3.0, 10.0, 20.0, 5.0]), np.array([0, 0, 0, 1, 1, 2])
    groups = [values[clusters == label] for label in range(3)]
    every = [np.concatenate(draw).mean() for draw in itertools.product(groups, repeat=3)]
    means = resampled_means(values, clusters, resamples=100_000, generator=generator())
    assert set(np.round(means, 9)) == set(np.round(every, 9))
    assert means.mean() == pytest.approx(np.mean(every), rel=0.01)
    assert means.std() == pytest.approx(np.std(every), rel=0.01)


def test_seeds_nested_in_classes_by_enumeration() -> None:
    # Class 0 has the seeds {0, 1} with 1 and 2 images, class 1 the seed 0 with 1 image.
    values, clusters, seeds = [1.0, 2.0, 4.0, 9.0], [0, 0, 0, 1], [0, 1, 1, 0]
    cells = {0: [np.array([1.0]), np.array([2.0, 4.0])], 1: [np.array([9.0])]}
    every, chances = [], []
    for draw in itertools.product((0, 1), repeat=2):
        options = [list(itertools.product(cells[label], repeat=len(cells[label]))) for label in draw]
        for chosen in itertools.product(*options):
            every.append(np.concatenate([cell for copy in chosen for cell in copy]).mean())
            chances.append(0.25 / np.prod([len(option) for option in options]))
    mean = np.average(every, weights=chances)
    deviation = np.sqrt(np.average((np.array(every) - mean) ** 2, weights=chances))
    means = resampled_means(values, clusters, seeds, resamples=100_000, generator=generator())
    assert set(np.round(means, 9)) == set(np.round(every, 9))
    assert means.mean() == pytest.approx(mean, rel=0.01)
    assert means.std() == pytest.approx(deviation, rel=0.01)


def test_variance_in_closed_form() -> None:
    classes, seeds, images = 12, 3, 4
    rng = generator()
    values = rng.normal(size=(classes, 1, 1)) + rng.normal(size=(classes, seeds, 1)) + np.zeros((1, 1, images))
    clusters = np.repeat(np.arange(classes), seeds * images)
    seed_labels = np.tile(np.repeat(np.arange(seeds), images), classes)
    between = values.mean(axis=(1, 2)).var() / classes
    within = values[:, :, 0].var(axis=1).mean() / (seeds * classes)
    plain = resampled_means(values.ravel(), clusters, resamples=100_000, generator=rng)
    nested = resampled_means(values.ravel(), clusters, seed_labels, resamples=100_000, generator=rng)
    assert plain.var() == pytest.approx(between, rel=0.02)
    assert nested.var() == pytest.approx(between + within, rel=0.02)


def test_columns_of_a_draw_hold_the_same_images() -> None:
    hits = np.array([1.0, 0.0, 1.0, 1.0, 0.0])
    means = resampled_means(np.stack([hits, 1 - hits], axis=1), [0, 0, 1, 1, 2], generator=generator())
    assert means.shape == (10_000, 2)
    assert means.sum(axis=1) == pytest.approx(1.0)


def test_draws_do_not_depend_on_the_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    values, clusters = correlated_study(7, 3, generator()), np.repeat(np.arange(7), 3)
    whole = resampled_means(values, clusters, resamples=100, generator=generator(5))
    monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_ONCE", 30)
    assert np.array_equal(resampled_means(values, clusters, resamples=100, generator=generator(5)), whole)


def test_rows_may_come_in_any_order() -> None:
    values, clusters = correlated_study(7, 3, generator()), np.repeat(np.arange(7), 3)
    order = generator(1).permutation(len(values))
    first = cluster_bootstrap(values, clusters, generator=generator(2))
    second = cluster_bootstrap(values[order], clusters[order], generator=generator(2))
    assert first == pytest.approx(second)


def test_names_serve_as_well_as_numbers() -> None:
    values = [0.1, 0.4, 0.5, 0.9]
    by_number = cluster_bootstrap(values, [0, 0, 1, 1], [0, 1, 0, 1], generator=generator())
    by_name = cluster_bootstrap(values, ["a", "a", "b", "b"], ["x", "y", "x", "y"], generator=generator())
    assert by_number == by_name


def test_one_class_has_no_interval() -> None:
    assert cluster_bootstrap([0.0, 1.0, 0.5], ["a", "a", "a"], generator=generator()) is None


def test_many_classes_give_the_normal_interval() -> None:
    values = generator().normal(size=1_000)
    error = values.std() / np.sqrt(len(values))
    found = cluster_bootstrap(values, np.arange(1_000), resamples=20_000, generator=generator())
    assert found == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.06 * error)


def test_plain_percentiles_are_scipys() -> None:
    values = generator().normal(size=400)
    reference = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=generator(3))
    found = cluster_bootstrap(values, np.arange(400), resamples=20_000, generator=generator())
    width = reference.confidence_interval.high - reference.confidence_interval.low
    assert found == pytest.approx(tuple(reference.confidence_interval), abs=0.03 * width)


def test_expanded_percentiles_give_the_student_interval_for_few_classes() -> None:
    means = generator().normal(scale=np.sqrt(9 / 10), size=1_000_000)  # of 10 class means with deviation sqrt(10)
    low, high = expanded_percentiles(means, 10)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 9), rel=0.01)


def test_coverage() -> None:
    assert 0.90 <= coverage(studies=400, classes=20, images=8) <= 0.985


def test_images_taken_as_independent_cover_far_less() -> None:
    assert coverage(studies=200, classes=20, images=8, clustered=False) < 0.8


@pytest.mark.slow
def test_coverage_of_two_thousand_studies() -> None:
    assert 0.93 <= coverage(studies=2_000, classes=100, images=8) <= 0.97


@pytest.mark.slow
def test_nested_seeds_err_on_the_wide_side() -> None:
    rng, classes, seeds, images = generator(), 30, 3, 4
    clusters, seed_labels = (
        np.repeat(np.arange(classes), seeds * images),
        np.tile(np.repeat(range(seeds), images), classes),
    )
    inside = 0
    for _ in range(1_000):
        noise = rng.normal(size=(classes, 1, 1)) + rng.normal(size=(classes, seeds, 1))
        study = (noise + rng.normal(size=(classes, seeds, images))).ravel()
        interval = cluster_bootstrap(study, clusters, seed_labels, resamples=1_000, generator=rng)
        assert interval is not None
        inside += interval[0] <= 0 <= interval[1]
    assert 0.94 <= inside / 1_000 <= 0.99


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"values": [0.0, np.nan, 1.0]}, r"`values` should hold finite numbers. Found nan in row 1 \(1 such"),
        ({"values": [np.inf, 0.0, 1.0]}, "Found inf in row 0"),
        ({"values": [], "clusters": []}, "`values` should hold at least one image. Found none."),
        ({"values": [[0.0], [1.0], [2.0]]}, r"one value per image. Found shape \(3, 1\)"),
        ({"clusters": [0, 1]}, r"`clusters` should have one entry per image, 3 in all. Found shape \(2,\)"),
        ({"seeds": [0, 1]}, r"`seeds` should have one entry per image, 3 in all. Found shape \(2,\)"),
        ({"resamples": 0}, "`resamples` should be a positive integer. Found 0."),
        ({"level": 95.0}, "`level` should lie between 0 and 1. Found 95.0."),
    ],
)
def test_refusals(changes: dict[str, Any], message: str) -> None:
    asked: dict[str, Any] = {"values": [0.0, 1.0, 2.0], "clusters": [0, 1, 1], "generator": generator()} | changes
    with pytest.raises(ValueError, match=message):
        cluster_bootstrap(**asked)


def test_percentiles_of_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`classes` should be at least 2. Found 1."):
        expanded_percentiles(np.zeros(3), 1)


@pytest.mark.parametrize("class_of_cell", [[0, 1, 2], [0, 0, 1, 2, 2]])
def test_kept_draws_are_those_that_would_be_made(class_of_cell: list[int]) -> None:
    """So is the generator's next number, whether or not the draws were asked for before."""
    cells, made_by = np.array(class_of_cell), generator(3)
    expected, following = np.concatenate(list(bootstrap._made(cells, 50, made_by))), made_by.random()
    for _ in range(2):
        asked = generator(3)
        assert np.array_equal(np.concatenate(list(bootstrap._draws(cells, 50, asked))), expected)
        assert asked.random() == following
    assert not np.array_equal(np.concatenate(list(bootstrap._draws(cells, 50, generator(4)))), expected)
