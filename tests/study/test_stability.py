import math

import pytest

from diffaudit.records import CurvePoint
from diffaudit.study.stability import coefficient_of_variation, irregular_steps, stability


def point(step: int, norm: float = 1.0, *, stage: str = "embed", **parts: float) -> CurvePoint:
    return CurvePoint(
        stage=stage,
        step=step,
        parts=parts,
        weights=dict.fromkeys(parts, 1.0),
        value=0.0,
        gradient_norm=norm,
        target_accuracy=0.5,
    )


def test_variation_is_of_the_last_quarter() -> None:
    curves = [point(step, id=100.0) for step in range(9)] + [point(9 + step, id=float(step)) for step in (1, 2, 3)]
    assert stability(curves)["coefficient_of_variation"] == {"id": 0.5}


def test_a_term_that_ended_earlier_has_no_variation() -> None:
    curves = [point(step, old=1.0) for step in range(6)] + [point(6 + step, new=1.0 + step) for step in range(2)]
    found = stability(curves)["coefficient_of_variation"]
    assert found == {"old": None, "new": pytest.approx(math.sqrt(0.5) / 1.5)}


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.nan], [-1.0, 1.0], [0.0, 0.0]])
def test_an_undefined_variation_is_none(values: list[float]) -> None:
    assert coefficient_of_variation(values) is None


def test_a_negative_mean_has_a_positive_variation() -> None:
    assert coefficient_of_variation([-1.0, -2.0, -3.0]) == 0.5


def test_clipped_steps() -> None:
    curves = [point(step, norm) for step, norm in enumerate([0.5, 1.0, 1.5, math.nan])]
    assert stability(curves, clip=1.0)["clipped_steps"] == 2
    assert stability(curves)["clipped_steps"] is None


def test_irregular_steps_vanish_break_or_burst() -> None:
    norms = [1.0, 1.2, 0.8, 10.5, 9.9, 1e-9, math.inf, math.nan]
    curves = [point(step, norm) for step, norm in enumerate(norms)]
    # medians before each: -, 1, 1.1, 1, 1.1, 1.2, 1.1, 1.1
    assert irregular_steps(curves) == [False, False, False, True, False, True, True, True]
    assert stability(curves)["irregular_steps"] == 0.5


def test_a_stage_starts_its_own_median() -> None:
    curves = [point(0, 1.0), point(1, 1.0), point(2, 50.0, stage="adapt"), point(3, 50.0, stage="adapt")]
    assert irregular_steps(curves) == [False] * 4


def test_no_steps_have_no_shares() -> None:
    assert stability([], clip=1.0) == {
        "steps": 0,
        "coefficient_of_variation": {},
        "clipped_steps": None,
        "irregular_steps": None,
    }
