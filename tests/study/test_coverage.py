"""Do 95 % of the "95 %" intervals hold the truth? Whole studies are drawn anew, images correlated within their class.

A study is 100 classes, 3 seeds and 8 images (or 20, 3 and 4). An image is recognised where the sum of its class's part,
its class and seed's part, and its own noise exceeds a threshold, so the true share is known. All studies are resampled
with the same draws of classes, which makes thousands of them quick.
"""

import numpy as np
import pytest
from scipy.stats import norm

from diffaudit.study.bootstrap import Floats, expanded_percentiles, resampled_means

SHARE = 0.6
SPREADS = [(1.0, 0.3), (0.5, 0.3), (1.0, 1.0), (0.0, 0.0)]
"""Deviations between classes and between a class's seeds; an image's own is 1."""


def hits(of_class: Floats, spread: tuple[float, float], images: int, rng: np.random.Generator) -> Floats:
    """``(G, S, n, studies)`` successes, each with probability :data:`SHARE` over classes, seeds and images."""
    classes, _, _, studies = of_class.shape
    latent = of_class + spread[1] * rng.normal(size=(classes, 3, 1, studies))
    latent = latent + rng.normal(size=(classes, 3, images, studies))
    found: Floats = (latent + norm.ppf(SHARE) * np.sqrt(1 + spread[0] ** 2 + spread[1] ** 2) > 0).astype(np.float64)
    return found


def coverage(
    spread: tuple[float, float],
    *,
    paired: bool,
    studies: int,
    classes: int = 100,
    images: int = 8,
    resamples: int = 2_000,
    seeds_drawn_again: bool = False,
) -> float:
    """Share of studies whose interval of the share (or of the difference of two rows, truly 0) holds the truth."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=(classes, 1, 1, studies))
    if paired:  # half of what tells classes apart is common to both rows
        own = (spread[0] * (common + rng.normal(size=common.shape)) / np.sqrt(2) for _ in range(2))
        table = np.subtract(*(hits(of_class, spread, images, rng) for of_class in own))
    else:
        table = hits(spread[0] * common, spread, images, rng)
    labels = np.repeat(np.arange(classes), 3 * images)
    seeds = np.tile(np.repeat(np.arange(3), images), classes)
    means = resampled_means(
        table.reshape(-1, studies), labels, seeds if seeds_drawn_again else None, resamples=resamples, generator=rng
    )
    ends = np.array([expanded_percentiles(column, classes) for column in means.T])
    truth = 0.0 if paired else SHARE
    return float(np.mean((ends[:, 0] <= truth) & (truth <= ends[:, 1])))


@pytest.mark.parametrize("paired", [False, True])
def test_coverage_of_some_studies(paired: bool) -> None:
    assert 0.91 <= coverage((1.0, 0.3), paired=paired, studies=300, classes=20, images=4, resamples=1_000) <= 0.99


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("paired", [False, True])
def test_coverage_of_two_thousand_studies(spread: tuple[float, float], paired: bool) -> None:
    assert 0.93 <= coverage(spread, paired=paired, studies=2_000) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("spread", SPREADS[1:])  # where seeds or images, not classes, make the difference vary
def test_drawing_seeds_again_is_too_wide_for_differences(spread: tuple[float, float]) -> None:
    assert coverage(spread, paired=True, studies=2_000, classes=20, images=4, seeds_drawn_again=True) > 0.97
