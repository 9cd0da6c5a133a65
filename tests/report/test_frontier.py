"""Names on the frontier: beside their points, on no other name, and inside the axes."""

from typing import Any

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from diffaudit.report.frontier import Point, Series, frontier


def share(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.05, "high": value + 0.05}


def names(figure: Figure) -> dict[str, Bbox]:
    figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
    # Of the words alone: an annotation's own extent takes in the line that leads to its point.
    return {text.get_text(): Text.get_window_extent(text) for text in texts if "better" not in text.get_text()}


@pytest.fixture
def crowd() -> Figure:
    """Nine rows within a tenth of each other, two of them at one place."""
    places = [(0.5 + 0.03 * (n % 3), 0.2 + 0.01 * (n // 3)) for n in range(8)]
    points = [Point(f"row number {n}", share(up), share(out)) for n, (up, out) in enumerate([*places, places[0]])]
    return frontier([Series("rows", tuple(points))], "fooled")


def test_no_name_lies_on_another(crowd: Figure) -> None:
    boxes = list(names(crowd).values())
    assert len(boxes) == 9
    assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]


def test_names_stay_inside_the_axes() -> None:
    points = (Point("at the right end", share(0.95), share(0.9)), Point("at the left end", share(0.02), share(0.06)))
    figure = frontier([Series("rows", points)], "fooled")
    frame = figure.axes[0].get_window_extent()
    for box in names(figure).values():
        assert frame.x0 <= box.x0 <= box.x1 <= frame.x1
        assert frame.y0 <= box.y0 <= box.y1 <= frame.y1


def test_a_point_without_intervals_stands_alone() -> None:
    bare = {"value": 0.5, "low": None, "high": None}
    figure = frontier([Series("rebuilt", (Point("", bare, bare),), marker="D", faint=True)], "fooled")
    (line,) = figure.axes[0].lines
    assert (line.get_marker(), line.get_label()) == ("D", "rebuilt")
    assert names(figure) == {}
