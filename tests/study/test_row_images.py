import numpy as np
import pytest

from diffaudit.study.inversion_images import inversion_images
from diffaudit.study.row_images import paired

from .conftest import image


def test_columns_by_hand() -> None:
    records = {1: [image("attack", 5, 0, True)], 0: [image("attack", 5, 1, False), image("attack", 4, 0, True)]}
    found = inversion_images(records)
    assert found.keys == ((4, 0, 0), (5, 0, 0), (5, 1, 0))
    assert found.columns["judge_accuracy"].tolist() == [1, 0, 1]
    assert found.columns["judges.two"].tolist() == [1, 0, 1]
    assert found.columns["overfit_gap"].tolist() == [0, 1, 0]
    assert found.columns["attribute_error"].tolist() == [0.5] * 3
    assert found.columns["attribute_error.light"].tolist() == [0.75] * 3
    assert "factor_error" not in found.columns
    assert (found.clusters.tolist(), found.seeds.tolist()) == ([4, 5, 5], [0, 0, 1])


def test_a_measure_that_some_images_lack_is_left_out_and_noted() -> None:
    notes: list[str] = []
    images = [image("attack", 0, 0, True, diversity=None), image("attack", 0, 1, True)]
    found = inversion_images({0: images}, notes=notes)
    assert "diversity" not in found.columns
    assert notes == ["diversity: measured on 1 of 2 images, so it is left out."]
    broken = inversion_images({0: [image("attack", 0, 0, True, identity_cosine=float("nan"))]})
    assert "identity_cosine" not in broken.columns


def test_images_on_the_same_source_meet_whatever_their_rank() -> None:
    """The target likes source 8 best in one row and source 2 in the other."""
    one = inversion_images({0: [image("attack", 0, 0, True, source=8), image("attack", 0, 1, False, source=2)]})
    other = inversion_images({0: [image("attack", 0, 0, False, source=2), image("attack", 0, 1, True, source=8)]})
    first, second = paired(one, other)
    assert first.columns["judge_accuracy"].tolist() == second.columns["judge_accuracy"].tolist() == [0, 1]


def test_rows_are_paired_on_the_seeds_that_both_have() -> None:
    one = inversion_images({seed: [image("attack", label, 0, True) for label in (0, 1)] for seed in (0, 1)})
    other = inversion_images({seed: [image("attack", label, 0, label == 1) for label in (1, 0)] for seed in (1, 2)})
    first, second = paired(one, other)
    assert first.keys == second.keys == ((0, 1, 0), (1, 1, 0))
    assert np.array_equal(second.columns["judge_accuracy"], [0, 1])


def test_an_image_without_a_partner_is_refused() -> None:
    one = inversion_images({0: [image("attack", 0, 0, True)]})
    other = inversion_images({0: [image("attack", 0, 0, True), image("attack", 0, 1, True)]})
    with pytest.raises(ValueError, match="without a partner"):
        paired(one, other)
