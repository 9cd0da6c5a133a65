from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from scipy import stats

from diffaudit.study.bootstrap import cluster_bootstrap
from diffaudit.study.statistics import Rate, Value, rate, share_of_gap, value


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wilson(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    interval = stats.binomtest(successes, trials).proportion_ci(confidence_level=level, method="wilson")
    return interval.low, interval.high


def test_value_is_the_mean_with_the_clustered_interval() -> None:
    values, clusters = [0.1, 0.2, 0.6, 0.9, 0.4], [0, 0, 1, 1, 2]
    found = value(values, clusters, generator=generator())
    assert found.value == pytest.approx(0.44)
    assert (found.low, found.high) == cluster_bootstrap(values, clusters, generator=generator())


def test_value_of_a_difference_is_paired() -> None:
    target, judge = np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.5, -0.5, 0.5, -0.5])
    found = value(target - judge, [0, 1, 2, 3], generator=generator())
    assert found == Value(0.5, 0.5, 0.5)


def test_rate_and_its_naive_interval() -> None:
    successes = np.array([True] * 30 + [False] * 10)
    found = rate(successes, np.repeat(np.arange(10), 4), generator=generator())
    assert (found.value, found.n) == (0.75, 40)
    assert (found.naive_low, found.naive_high) == pytest.approx(wilson(30, 40))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.naive_low < found.naive_high < found.high  # classes agree within: the naive is too narrow


def test_rate_level() -> None:
    found = rate([True, False] * 10, np.repeat(np.arange(5), 4), level=0.8, generator=generator())
    assert (found.naive_low, found.naive_high) == pytest.approx(wilson(10, 20, 0.8))


@pytest.mark.parametrize(("hit", "successes"), [(True, 20), (False, 0)])
def test_a_rate_without_spread_takes_the_classes_as_trials(hit: bool, successes: int) -> None:
    found = rate([hit] * 160, np.repeat(np.arange(20), 8), generator=generator())
    assert (found.low, found.high) == pytest.approx(wilson(successes, 20))


def test_one_class_has_a_naive_interval_alone() -> None:
    found = rate([True, False, True], ["a", "a", "a"], generator=generator())
    assert (found.low, found.high) == (None, None)
    assert (found.naive_low, found.naive_high) == pytest.approx(wilson(2, 3))


def test_share_of_gap_by_hand() -> None:
    start, ceiling, clusters = np.array([0.2, 0.4, 0.3, 0.5]), np.array([0.7, 0.9, 0.8, 1.0]), [0, 1, 2, 3]
    found = share_of_gap(start + 0.2, start, ceiling, clusters, generator=generator())
    assert (found.value, found.low, found.high) == pytest.approx((0.4, 0.4, 0.4))


def test_share_of_gap_is_scale_free() -> None:
    rng = generator(1)
    start, reached, ceiling = (rng.normal(loc=mean, scale=0.3, size=60) for mean in (0.0, 0.5, 1.0))
    clusters = np.repeat(np.arange(20), 3)
    found = share_of_gap(reached, start, ceiling, clusters, generator=generator())
    moved = share_of_gap(3 * reached + 7, 3 * start + 7, 3 * ceiling + 7, clusters, generator=generator())
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
    assert (moved.value, moved.low, moved.high) == pytest.approx((found.value, found.low, found.high))


def test_share_of_an_uncertain_gap_has_no_interval() -> None:
    start, ceiling = np.zeros(6), np.array([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    found = share_of_gap(ceiling, start, ceiling, np.arange(6), generator=generator())
    assert found == Value(1.0, None, None)


def test_share_of_gap_of_one_class_has_no_interval() -> None:
    assert share_of_gap([0.5], [0.0], [1.0], ["a"], generator=generator()) == Value(0.5, None, None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (([0.5, 0.5], [0.8, 0.8], [0.8, 0.8]), "`ceiling` should have a larger mean than `start`. Found 0.8 and 0.8."),
        (([0.5, 0.5], [0.8], [0.8, 0.8]), "Found lengths {'values': 2, 'start': 1, 'ceiling': 2}"),
        (([0.5, np.nan], [0.1, 0.1], [0.8, 0.8]), "`values` should hold finite numbers. Found nan in row 1"),
    ],
)
def test_share_of_gap_refuses(columns: tuple[list[float], list[float], list[float]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        share_of_gap(*columns, [0, 1], generator=generator())


def test_rate_refuses_votes() -> None:
    with pytest.raises(ValueError, match=r"`successes` should hold booleans, or 0 and 1. Found 0.5. `value` takes"):
        rate([1.0, 0.5], [0, 1], generator=generator())


@pytest.mark.parametrize("function", [rate, value])
def test_nan_is_refused(function: Any) -> None:
    with pytest.raises(ValueError, match=r"should hold finite numbers. Found nan in row 1"):
        function([1.0, np.nan], [0, 1], generator=generator())


def test_to_json_survives_json() -> None:
    successes, clusters = np.array([True, False, True, True]), np.array([0, 0, 1, 1])
    found = rate(successes, clusters, generator=generator())
    assert Rate(**json.loads(json.dumps(found.to_json(), allow_nan=False))) == found
    mean = value(np.array([0.5, 1.0], dtype=np.float32), clusters[:2], generator=generator())
    assert json.loads(json.dumps(mean.to_json(), allow_nan=False)) == {"value": 0.75, "low": None, "high": None}


def test_a_report_reads_statistics_without_torch() -> None:
    code = "import sys, diffaudit.study.statistics, diffaudit.study.comparison; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
