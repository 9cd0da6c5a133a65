import math

import pytest

from diffaudit.records import CurvePoint
from diffaudit.settings import InversionSettings, check_settings
from diffaudit.study.learned_weights import weights_at_bounds

LEARNED = check_settings({"weighting": {"kind": "uncertainty"}, "terms": {"cls": [{"kind": "top_k", "bounded": True}]}})


def point(step: int, **weights: float) -> CurvePoint:
    return CurvePoint(
        stage="embed", step=step, parts={}, weights=weights, value=0.0, gradient_norm=1.0, target_accuracy=0.5
    )


@pytest.mark.parametrize(("log_variance", "ended"), [(4.0, True), (-4.0, True), (3.9, False), (-3.9, False)])
def test_a_learned_weight_at_a_bound_is_named(log_variance: float, ended: bool) -> None:
    """By the last step, and of learned groups alone: a weight that was given may be what it likes."""
    weight = math.exp(-log_variance) / 2
    curves = [point(0, id=27.3), point(1, id=weight, reg=weight)]
    assert weights_at_bounds(curves, LEARNED) == ({"id": weight} if ended else {})
    assert weights_at_bounds(curves, InversionSettings()) == weights_at_bounds([], LEARNED) == {}
