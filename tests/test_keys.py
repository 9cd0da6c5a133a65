"""Which key was meant: known by the spelling, wherever in the settings it stands."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from diffaudit._keys import key_meant


class Square(BaseModel):
    kind: Literal["square"] = "square"
    side: float = 1.0
    square: "Square | None" = None


class Circle(BaseModel):
    kind: Literal["circle"] = "circle"
    radius: float = 1.0


Shape = Annotated[Square | Circle, Field(discriminator="kind")]


class Drawing(BaseModel):
    shape: Shape | None = None
    shapes: tuple[Shape, ...] = ()
    named: dict[str, Shape] = {}
    groups: Sequence[Mapping[str, list[Circle]]] = ()
    below: "Drawing | None" = None


@pytest.mark.parametrize(
    ("loc", "key"),
    [
        (("shap",), "shape"),
        (("shape", "square", "sides"), "side"),
        (("shape", "circle", "radus"), "radius"),
        (("shape", "circle", "sides"), None),  # a square's
        (("shape", "square", "square", "sides"), "side"),  # the tag, then the key of the same name
        (("shapes", 3, "circle", "radus"), "radius"),
        (("named", "shape", "square", "sides"), "side"),
        (("groups", 0, "circle", 1, "radus"), "radius"),
        (("below", "below", "shapes", 0, "square", "knd"), "kind"),
        (("below", "shape", "triangle", "sides"), None),
        (("nowhere", "sides"), None),
    ],
)
def test_the_nearest_key_of_its_own_section(loc: tuple[str | int, ...], key: str | None) -> None:
    assert key_meant(Drawing, loc) == key
