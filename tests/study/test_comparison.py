from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from diffaudit.study.comparison import (
    Difference,
    aligned,
    cohens_d,
    corrected,
    holm,
    paired_difference,
    sign_flip_p,
    wilcoxon_p,
)
from diffaudit.study.matched_pairs import MatchedPairs


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def every_sign_flip(differences: list[float]) -> float:
    patterns = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    means = np.abs(patterns @ np.array(differences))
    return float(np.mean(means >= abs(sum(differences)) - 1e-9))


@pytest.mark.parametrize(
    "differences",
    [[1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [0.1, 0.2, -0.3], [0.125, 0.0, 0.25, -0.125, 0.5, 0.25], [0.0, 0.0]],
)
def test_sign_flip_by_enumeration(differences: list[float]) -> None:
    assert sign_flip_p(differences, generator=generator()) == pytest.approx(every_sign_flip(differences))


def test_sign_flip_counts_every_pattern_up_to_fourteen_classes() -> None:
    assert sign_flip_p([1.0] * 14, resamples=10, generator=generator()) == pytest.approx(2**-13)


def test_drawn_sign_flips_agree_with_all_of_them_and_are_never_zero() -> None:
    differences = generator(3).normal(loc=0.4, size=16).tolist()
    assert sign_flip_p(differences, generator=generator()) == pytest.approx(every_sign_flip(differences), abs=0.01)
    assert sign_flip_p([1.0] * 40, resamples=999, generator=generator()) == pytest.approx(2 / 1_000)


@pytest.mark.parametrize("classes", [5, 40])
def test_sign_flips_are_scipys(classes: int) -> None:
    """Held to a well-kept library, which is slower: an ablation makes thousands of these tests."""
    differences = generator(5).normal(loc=0.3, size=classes)
    drawn = {"n_resamples": 2**classes if classes < 14 else 9_999, "batch": 1_000, "rng": generator(1)}
    expected = stats.permutation_test((differences,), np.mean, permutation_type="samples", vectorized=True, **drawn)
    assert sign_flip_p(differences, generator=generator(2)) == pytest.approx(float(expected.pvalue), abs=0.012)


def test_one_class_shows_nothing() -> None:
    assert sign_flip_p([5.0], generator=generator()) == 1.0


def test_sign_flip_keeps_its_level_on_correlated_images() -> None:
    rng, rejected = generator(), 0
    for _ in range(400):
        centres = rng.normal(size=10)
        differences = (centres[:, None] + rng.normal(size=(10, 8))).mean(axis=1)
        rejected += sign_flip_p(differences, generator=rng) <= 0.05
    assert rejected / 400 <= 0.08


def test_holm_by_hand() -> None:
    adjusted = holm({"A": 0.01, "B": 0.04, "C": 0.03, "D": 0.9})
    assert adjusted == pytest.approx({"A": 0.04, "B": 0.09, "C": 0.09, "D": 0.9})
    assert holm({}) == {}


def test_holm_is_statsmodels_own() -> None:
    values = {f"row {number}": float(p) for number, p in enumerate(generator().uniform(size=40) ** 3)}
    values |= {"tie": values["row 3"], "zero": 0.0, "one": 1.0}
    adjusted = multipletests(list(values.values()), method="holm")[1]
    assert list(holm(values).values()) == pytest.approx(adjusted.tolist())


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_holm_refuses(p: float) -> None:
    with pytest.raises(ValueError, match=r"`p_values` should lie between 0 and 1. Found .* for 'B'"):
        holm({"A": 0.5, "B": p})


def test_cohens_d_by_hand() -> None:
    assert cohens_d([1.0, 3.0]) == pytest.approx(2 / np.sqrt(2))
    assert cohens_d([0.3, 0.3, 0.3]) is None
    assert cohens_d([0.0, 0.0]) is None
    assert cohens_d([1.0]) is None


def test_cohens_d_is_the_t_statistic_over_the_root_of_the_classes() -> None:
    differences = generator().normal(loc=0.5, size=30)
    assert cohens_d(differences) == pytest.approx(stats.ttest_1samp(differences, 0).statistic / np.sqrt(30))


def test_wilcoxon_by_hand() -> None:
    assert wilcoxon_p([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]) == pytest.approx(2 / 64)
    assert wilcoxon_p([1.0, -2.0, 3.0]) == pytest.approx(6 / 8)  # W = 2: {}, {1}, {2} of the 8 sets, and their mirrors
    assert wilcoxon_p([0.0, 0.0]) == 1.0


def test_paired_difference_by_hand() -> None:
    values = np.array([True, True, True, False, True, True])
    baseline = np.array([False, True, False, True, True, False])
    clusters, seeds = np.array(["a", "a", "b", "b", "c", "c"]), np.array([0, 1, 0, 1, 0, 1])
    found = paired_difference(values, baseline, clusters, seeds, generator=generator())
    assert found.value == pytest.approx(2 / 6)
    assert found.by_seed == pytest.approx({"0": 2 / 3, "1": 0.0})
    assert not found.same_sign
    assert found.pairs is not None
    assert found.pairs.odds_ratio == 3.0
    assert found.pairs.mcnemar == pytest.approx(10 / 16)  # 3 against 1: twice 5/16
    assert found.p == pytest.approx(0.5)  # class means 1/2, 0, 1/2
    assert found.effect_size == pytest.approx((1 / 3) / np.sqrt(1 / 12))
    assert found.p_corrected is None


def test_measured_columns_have_no_odds() -> None:
    found = paired_difference([0.3, 0.9], [0.1, 0.2], [0, 1], generator=generator())
    assert found.pairs is None
    assert found.by_seed == {}
    assert not found.same_sign


def test_same_sign_in_every_seed() -> None:
    gains = np.array([0.5, 0.25, 0.25, 0.5])
    found = paired_difference(gains, np.zeros(4), [0, 0, 1, 1], [7, 8, 7, 8], generator=generator())
    assert found.by_seed == {"7": 0.375, "8": 0.375}
    assert found.same_sign
    assert paired_difference(-gains, np.zeros(4), [0, 0, 1, 1], [7, 8, 7, 8], generator=generator()).same_sign


def test_one_class_has_no_interval_and_no_significance() -> None:
    found = paired_difference([0.5, 0.7], [0.1, 0.1], [3, 3], generator=generator())
    assert (found.low, found.high, found.p, found.effect_size) == (None, None, 1.0, None)


def test_exchanging_the_configurations_turns_the_signs() -> None:
    rng = generator(1)
    values, baseline, clusters = rng.normal(loc=0.3, size=60), rng.normal(size=60), np.repeat(np.arange(12), 5)
    there = paired_difference(values, baseline, clusters, generator=generator())
    back = paired_difference(baseline, values, clusters, generator=generator())
    assert (back.value, back.p) == pytest.approx((-there.value, there.p))
    assert there.effect_size is not None
    assert back.effect_size == pytest.approx(-there.effect_size)
    assert there.low is not None
    assert there.high is not None
    assert (back.low, back.high) == pytest.approx((-there.high, -there.low))


def test_corrected_corrects_the_whole_table_and_nothing_else() -> None:
    clusters = np.arange(8)
    table = {
        name: paired_difference(np.full(8, gain) + 0.01 * clusters, np.zeros(8), clusters, generator=generator())
        for name, gain in {"A": 1.0, "B": -0.03}.items()
    }
    found = corrected(table)
    assert found["A"].p_corrected == pytest.approx(2 * table["A"].p) == pytest.approx(4 / 256)
    assert found["B"].p_corrected == pytest.approx(table["B"].p)
    assert found["A"].p == table["A"].p


def test_to_json_survives_json() -> None:
    found = corrected(
        {"A": paired_difference([True, True], [False, True], [0, 1], np.array([3, 3]), generator=generator())}
    )["A"]
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read.pop("same_sign") is True
    assert Difference(**read | {"pairs": MatchedPairs(**read["pairs"])}) == found


def test_aligned_pairs_rows_by_key() -> None:
    keys = [("a", 1, 0), ("b", 1, 0), ("a", 2, 0)]
    rows = aligned(keys, [keys[2], keys[0], keys[1]])
    assert rows.tolist() == [1, 2, 0]


def test_aligned_refuses_what_has_no_single_partner() -> None:
    with pytest.raises(ValueError, match=r"should be the same set. Found 2 without a partner, such as 'b'"):
        aligned(["a", "b"], ["a", "c"])
    with pytest.raises(ValueError, match=r"`baseline_keys` should name each row once. Found 'a' twice."):
        aligned(["a", "b"], ["a", "b", "a"])


def test_columns_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`baseline` should have one entry per entry of `values`, 2 in all. Found 3."):
        paired_difference([1.0, 2.0], [1.0, 2.0, 3.0], [0, 1], generator=generator())
