"""The frontier: every attack is a point where its numbers say."""

import json
from typing import Any

import numpy as np
import pytest
from matplotlib.lines import Line2D

from diffaudit.records import CoursePoint
from diffaudit.report.perturbation_figures import course_figures, frontier_figure

from .conftest import MakePerturbed


def metrics(make: MakePerturbed, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((make(**options) / "metrics.json").read_text())
    return found


def coordinates(line: Line2D, axis: int) -> list[float]:
    points = np.asarray(line.get_xydata(), dtype=np.float64)
    return [float(value) for value in points[:, axis]]


def test_points_stand_where_the_numbers_say(make_perturbed: MakePerturbed) -> None:
    rows = ("attack", "pgd-8", "pgd-4")
    found = metrics(make_perturbed, rows=rows, distances={"attack": 0.5, "pgd-8": 0.25, "pgd-4": 0.125})
    figure = frontier_figure(found)
    assert figure is not None
    (axes,) = figure.axes
    marked = {line.get_label(): line for line in axes.lines if line.get_marker() == "o"}
    assert set(marked) == {"Attack", "PGD"}
    assert coordinates(marked["Attack"], 0) == [0.5]
    assert coordinates(marked["Attack"], 1) == pytest.approx([200 / 3])
    assert coordinates(marked["PGD"], 0) == [0.125, 0.25]  # a family is joined in order of distance
    assert {text.get_text() for text in axes.texts} >= {"4/255", "8/255"}


def test_intervals_are_drawn(make_perturbed: MakePerturbed) -> None:
    found = metrics(make_perturbed, rows=("attack",))
    figure = frontier_figure(found)
    assert figure is not None
    ends = [100 * found["transfer_mean"][end] for end in ("low", "high")]
    assert any(coordinates(line, 1) == pytest.approx(ends) for line in figure.axes[0].lines)


def test_what_is_rebuilt_is_marked_and_joined_to_nothing(make_perturbed: MakePerturbed) -> None:
    rows = ("attack", "rebuilt", "pgd-8")
    found = metrics(make_perturbed, rows=rows, distances={"attack": 0.5, "rebuilt": 0.0625, "pgd-8": 0.25})
    figure = frontier_figure(found)
    assert figure is not None
    marked = {str(line.get_label()): line for line in figure.axes[0].lines if line.get_marker() in ("o", "D")}
    assert [(label, line.get_marker()) for label, line in marked.items()] == [
        ("Attack", "o"),
        ("PGD", "o"),
        ("Rebuilt, no perturbation", "D"),
    ]
    assert coordinates(marked["Rebuilt, no perturbation"], 0) == [0.0625]


def test_without_held_out_models_there_is_no_frontier(make_perturbed: MakePerturbed) -> None:
    assert frontier_figure(metrics(make_perturbed, models={"seen": "surrogate"})) is None


def test_the_course_is_drawn_in_percent_with_a_line_a_surrogate() -> None:
    points = [
        CoursePoint(step=0, moving=1.0, fooled={"one": 0.0, "two": None}, parts={"layout": 4.0}),
        CoursePoint(step=1, moving=0.5, fooled={"one": 0.25, "two": None}, parts={"layout": 5.0}),
        CoursePoint(step=2, moving=0.0, fooled={"one": 0.75, "two": None}, parts={}),
    ]
    drawn = course_figures(points)
    assert list(drawn) == ["fooled", "moving", "term-layout"]
    one, two = drawn["fooled"][1].axes[0].lines
    assert (one.get_label(), coordinates(one, 1)) == ("one", [0, 25, 75])
    assert np.isnan(coordinates(two, 1)).all()
    assert coordinates(drawn["moving"][1].axes[0].lines[0], 1) == [100, 50, 0]
    assert coordinates(drawn["term-layout"][1].axes[0].lines[0], 1)[:2] == [4, 5]
