"""What a perturbation found: one record per adversarial image, of the attack and of every reference attack."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffaudit.records.folder import whole_lines

REBUILT = "rebuilt"
"""The row of what DDIM inversion and decoding alone give back, without a perturbation."""


@dataclass(frozen=True, kw_only=True)
class PerturbationRecord:
    """One adversarial image as judged, 8 bits a channel. Paths are relative to the run; what does not apply is None.

    Attributes:
        row: ``attack``; ``rebuilt`` (:data:`REBUILT`); or a reference attack, such as
            ``pgd-8``.
        image: number of the picture within the run, the same in every row.
        name: of the picture: its file's stem, or such as ``face-0007``.
        label: the true class.
        goal: the class sought by a targeted attack; None for one that wants any other class.
        picture: the judged PNG.
        clean_picture: the same picture before the attack, as PNG.
        clean_hits: by model, is ``label`` its only first choice on the clean picture?
        predicted: by model, its first choice on the adversarial picture.
        fooled: by model, is ``predicted`` the goal or, without one, other than ``label``? Read it where the clean
            picture was a hit: what was wrong before cannot be fooled.
        defended: by defence and model, the share in [0, 1] of the repeats that fooled the defended model, among those
            in which it was right on the defended clean picture; None where it never was.
        perceptual_distance: to the clean picture, from 0; lower is less visible.
        ssim: structural similarity to the clean picture, at most 1.
        psnr: peak signal to noise ratio, in dB; None where the two are the same.
        l2: root of the sum of squared differences, of images in [0, 1].
        linf: largest difference of a value, in [0, 1].
        colour_difference: mean Delta E (CIE 1976) over the pixels, in CIELAB; about 2.3 is just noticeable.
        reconstruction_psnr: of what DDIM inversion alone gives back, in dB; None for attacks on pixels.
        iterations: steps that the attack took; None where it does not say.
        label_kept: does the adversarial picture still deserve ``label``, by the rule that labels come from? A picture
            whose hair really has another colour or length fools nobody. None where no rule can be asked: photographs.
    """

    row: str
    image: int
    name: str
    label: int
    goal: int | None
    picture: str
    clean_picture: str
    clean_hits: dict[str, bool]
    predicted: dict[str, int]
    fooled: dict[str, bool]
    defended: dict[str, dict[str, float | None]]
    perceptual_distance: float
    ssim: float
    psnr: float | None
    l2: float
    linf: float
    colour_difference: float
    reconstruction_psnr: float | None
    iterations: int | None
    label_kept: bool | None = None

    @classmethod
    def from_json(cls, line: str) -> "PerturbationRecord":
        """The record of one line of ``records.jsonl``."""
        return cls(**json.loads(line))

    def to_json(self) -> str:
        """One line, keys in order of declaration; NaN and infinity are refused."""
        values: dict[str, Any] = asdict(self)
        return json.dumps(values, allow_nan=False)


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """Where an attack stood after so many steps, over all pictures of the run.

    Attributes:
        step: taken before, from 0: nothing was perturbed yet.
        moving: the share of the pictures that take one more.
        fooled: by surrogate, the share of the pictures that fool it, of those that it had right before the attack. A
            picture that moves no more counts as it was when it was looked at last. None where it had none right.
        parts: unweighted terms, means over the pictures that move.
    """

    step: int
    moving: float
    fooled: dict[str, float | None]
    parts: dict[str, float]

    def to_json(self) -> str:
        """One line, keys in order of declaration; NaN and infinity are refused."""
        return json.dumps(asdict(self), allow_nan=False)


def picture_path(row: str, image: int) -> str:
    """Where the judged picture of a row lies, relative to the run; the row of clean pictures is ``clean``.

    >>> picture_path("pgd-8", 7)
    'images/pgd-8/00007.png'
    """
    return f"images/{row}/{image:05d}.png"


def read_perturbation_records(path: Path) -> list[PerturbationRecord]:
    """All records of a run, in file order; a last line cut off by a kill is passed over."""
    return [PerturbationRecord.from_json(line) for line in whole_lines(path)]


def read_course(path: Path) -> list[CoursePoint]:
    """How a perturbation went, step by step; empty for a run that did not write it down."""
    return [CoursePoint(**json.loads(line)) for line in whole_lines(path)] if path.exists() else []
