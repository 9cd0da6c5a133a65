"""The labelled pictures that a perturbation starts from: procedural faces by their hair, or a folder with a list."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffaudit.settings.base import Count, Positive, Section, Seed


class WordedFaces(Section):
    """Procedural faces of nobody in the training sets, labelled by the words for their hair.

    Attributes:
        seed: of the order in which people are drawn.
        skip: so many of them are left out: the faces of a tuning, for one.
    """

    kind: Literal["faces"] = "faces"
    count: Positive = 40
    seed: Seed = 0
    skip: Count = 0


class LabelledPictures(Section):
    """A folder of pictures with a list of their classes, and the names of all classes.

    Attributes:
        folder: holds the pictures, or has them in ``images/``.
        labels: a CSV with the columns ``file`` and ``class_index``, or a text file with one number a line, in the order
            of the pictures' names.
        first_class: the number that the list calls the first class by: 1 in the layout of the DiffAttack code.
        names: a text file with one class name a line, or a CSV with the columns ``class_index`` and ``name``.
        size: side in pixels to which pictures are cut and scaled.
        every: 4 takes every fourth picture of the list, the first one included: lists are often sorted by class.
        count: the first so many of these; null: all.
    """

    kind: Literal["labelled"] = "labelled"
    folder: Path
    labels: Path
    first_class: Literal[0, 1] = 0
    names: Path
    size: Positive = 224
    every: Positive = 1
    count: Positive | None = None


Victims = Annotated[WordedFaces | LabelledPictures, Field(discriminator="kind")]
