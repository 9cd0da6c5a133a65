import math
from dataclasses import replace
from typing import Any

import pytest

from diffaudit.records import HealthPoint
from diffaudit.study.health import HealthLine, health_lines, light_groups, long_enough, normalised_weights, sigma_drift

POINT = HealthPoint(
    stage="embed",
    step=0,
    norm_error={"embedding": 1e-7, "anchor": 3e-8},
    positives=(0.1, 0.9),
    negatives=(-0.3, 0.4),
    gradient_norms={"cls": 1.0, "id": 0.2},
    gradient_cosines={"cls": {"id": 0.3}},
    satisfied={"cls": 0.0, "id": 0.0},
    weights={"cls": 1.0, "id": 0.5},
    log_variances={},
    at_clamp={},
    centre_travel=None,
)


def points_with(*changes: dict[str, Any], every: int = 10) -> list[HealthPoint]:
    return [replace(POINT, step=every * number, **change) for number, change in enumerate(changes)]


def line_of(name: str, points: list[HealthPoint]) -> HealthLine:
    return next(line for line in health_lines(points) if line.name == name)


def test_a_healthy_run_passes_and_has_no_advice() -> None:
    lines = health_lines(points_with({}, {}))
    assert [line.name for line in lines] == [
        "unit embeddings",
        "cosines",
        "term gradients",
        "conflicts",
        "satisfied hinges",
        "weights",
    ]
    assert all(line.passed and not line.advice for line in lines)


def test_no_looks_make_no_lines() -> None:
    assert health_lines([]) == []


@pytest.mark.parametrize("error", [2e-5, 0.5, math.nan])
def test_vectors_that_are_not_unit(error: float) -> None:
    line = line_of("unit embeddings", points_with({}, {"norm_error": {"embedding": 1e-7, "anchor": error}}, {}))
    assert not line.passed
    assert line.advice == "Normalise `anchor` where it is made."


def test_cosines_outside_their_range() -> None:
    assert line_of("cosines", points_with({"positives": (-1.0, 1.000001)})).passed
    line = line_of("cosines", points_with({}, {"negatives": (-0.2, 1.2)}))
    assert not line.passed
    assert line.detail == "positives in [0.100, 0.900]; negatives in [-0.300, 1.200]"
    assert line_of("cosines", points_with({"negatives": None})).detail == "positives in [0.100, 0.900]"


def test_a_term_that_never_pulls() -> None:
    dead = {"gradient_norms": {"cls": 1.0, "id": 0.0}}
    assert line_of("term gradients", points_with(dead, {}, dead)).passed
    line = line_of("term gradients", points_with(dead, dead))
    assert not line.passed
    assert line.advice.startswith("Never pulled at what is trained: id.")


def test_a_gradient_that_broke() -> None:
    line = line_of("term gradients", points_with({}, {"gradient_norms": {"cls": math.inf, "id": 1.0}}))
    assert (line.passed, line.advice) == (False, "Not finite: cls. Lower the learning rate.")


def test_a_term_that_bursts_beneath_the_others_shows() -> None:
    """Once in four looks ten times its median and more; the panel says so and passes, for it pulls."""
    burst = {"gradient_norms": {"cls": 1.0, "id": 2.1}}
    line = line_of("term gradients", points_with({}, {}, {}, burst))
    assert line.detail == "cls 1.0e+00 to 1.0e+00, id 2.0e-01 to 2.1e+00 (vanished or burst in 25% of the looks)"
    assert line.passed


def test_two_terms_that_undo_each_other() -> None:
    def looks(*cosines: float | None) -> list[HealthPoint]:
        return points_with(*[{"gradient_cosines": {"cls": {"id": cosine, "prior": 0.1}}} for cosine in cosines])

    assert line_of("conflicts", looks(-0.9, -0.05, None)).passed
    line = line_of("conflicts", looks(-0.9, -0.3, None))
    assert not line.passed
    assert line.detail == "least mean cosine of two term gradients -0.60, `cls` and `id`"


def test_below_minus_a_half_a_sum_is_shorter_than_either() -> None:
    for cosine in (-0.4, -0.6):
        assert (math.sqrt(2 + 2 * cosine) < 1) == (cosine < -0.5)


def test_without_hinges_nothing_is_said_of_them() -> None:
    assert "satisfied hinges" not in [line.name for line in health_lines(points_with({"satisfied": {}}))]


def test_a_hinge_that_every_image_satisfies() -> None:
    line = line_of("satisfied hinges", points_with({"satisfied": {"cls": 0.25, "id": 0.9}}))
    assert (line.passed, line.detail) == (True, "cls 25%, id 90%")
    line = line_of("satisfied hinges", points_with({}, {"satisfied": {"cls": 0.0, "id": 1.0}}))
    assert not line.passed
    assert "id. Raise the margin" in line.advice


def test_shares_of_the_weights() -> None:
    assert normalised_weights({"cls": 1.0, "id": 1.0, "reg": 0.0}) == {"cls": 0.5, "id": 0.5, "reg": 0.0}
    assert normalised_weights({"cls": 0.0}) == {"cls": 0.0}


@pytest.mark.parametrize(
    ("weights", "every", "expected"),
    [
        ([0.5] * 10 + [0.04] * 11, 10, ["id"]),
        ([0.5] * 11 + [0.04] * 10, 10, []),
        ([0.04] * 5 + [0.06] + [0.04] * 10 + [0.5] * 9, 10, []),
        ([0.04] * 5 + [0.06] + [0.04] * 11 + [0.5] * 9, 10, ["id"]),
        ([0.04] * 11 + [0.5] * 10, 10, ["id"]),
        ([0.0] * 30, 10, []),
        ([0.04] * 3 + [0.5] * 2, 50, ["id"]),
        ([0.04] * 3 + [0.5] * 2, 8, ["id"]),  # 32 steps between the looks: 16 are long
        ([0.04] * 2 + [0.5] * 3, 8, []),
        ([0.04, 0.04], 8, ["id"]),
    ],
)
def test_a_weight_that_stays_light(weights: list[float], every: int, expected: list[str]) -> None:
    """For 100 steps, or for half of them where the looks span less than 200."""
    points = points_with(*[{"weights": {"cls": 1 - weight, "id": weight}} for weight in weights], every=every)
    assert light_groups(points, steps=min(100, (len(weights) - 1) * every // 2)) == expected
    line = line_of("weights", points)
    assert line.passed == (not expected)
    assert ("Rescale their terms" in line.advice) == bool(expected)


def test_a_regulariser_weighs_little_by_design() -> None:
    points = points_with(*[{"weights": {"cls": 1.0, "reg": 0.01}}] * 20)
    assert light_groups(points, steps=100) == []
    assert light_groups(points, steps=100, exempt=()) == ["reg"]


def sigmas(*values: float, **more: float) -> list[HealthPoint]:
    changes = [
        {"log_variances": {"cls": value} | more, "at_clamp": {"cls": value} if abs(value) == 4 else {}}
        for value in values
    ]
    return points_with(*changes, every=50)


def test_drift_is_from_the_first_look_to_step_100_or_to_the_middle() -> None:
    assert sigma_drift(sigmas(0.5, 0.7, -0.25, 3.0), steps=100) == {"cls": -0.75}
    assert sigma_drift(sigmas(0.5, 0.7), steps=100) == {}
    assert sigma_drift([], steps=100) == {}
    long = sigmas(0.5, 0.7, -0.25, 3.0, 3.0)
    assert line_of("sigma drift", long).detail == "log sigma^2 after 100 steps: cls -0.75"
    assert line_of("sigma drift", sigmas(0.5, 0.7, -0.25)).detail == "log sigma^2 after 50 steps: cls +0.20"


@pytest.mark.parametrize(
    ("looks", "every", "expected"),
    [(0, 8, None), (1, 8, None), (2, 1, 1), (5, 8, 16), (4, 50, 75), (5, 50, 100), (21, 50, 100)],
)
def test_long_is_100_steps_or_half_of_those_between_the_looks(looks: int, every: int, expected: int | None) -> None:
    assert long_enough(points_with(*[{}] * looks, every=every)) == expected


@pytest.mark.parametrize("name", ["weights", "sigma drift"])
def test_a_single_look_has_nothing_to_compare(name: str) -> None:
    line = line_of(name, sigmas(0.5))
    assert line.passed is None
    assert line.detail == "nothing to compare: a single look"


def test_a_sigma_that_does_not_move_is_not_in_the_optimiser() -> None:
    line = line_of("sigma drift", sigmas(0.5, 0.7, -0.25, id=0.0))
    assert (line.passed, line.advice) == (False, "Did not move: id. Are they in the optimiser?")


def test_a_sigma_that_ends_at_the_clamp() -> None:
    line = line_of("sigma clamps", sigmas(0.0, 4.0, 3.0))
    assert (line.passed, line.detail) == (True, "cls at a bound in 1 of 3 looks")
    line = line_of("sigma clamps", sigmas(0.0, 2.0, 4.0))
    assert not line.passed
    assert line.advice.startswith("The weight is the bound, not learned: cls.")


def test_a_centre_that_walks_away() -> None:
    assert line_of("centre travel", points_with({"centre_travel": 0.2}, {})).passed
    assert not line_of("centre travel", points_with({"centre_travel": 0.2}, {"centre_travel": 1.1})).passed
