"""What an ablation was asked: rows over one base, of either audit."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from diffaudit.settings.base import FolderName, Positive, Section, Seed
from diffaudit.settings.inversion import NamedClasses

Mode = Literal["one_step", "rollout", None]
RowName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class AblationRow(Section):
    """One row: what it sets on top of the base. ``baseline`` None: if it is so named."""

    name: RowName
    set: dict[str, Any] = Field(default_factory=dict)
    baseline: bool | None = None


class InversionRow(AblationRow):
    """One row in one mode, or in several."""

    mode: Annotated[list[Mode], BeforeValidator(_listed)] = Field(default=[None], min_length=1)


class Contrast(Section):
    """Two rows to compare beside the comparisons with the baseline, by their keys such as ``rollout-A+B``."""

    row: str
    against: str


class AblationSettings(Section):
    """A whole ablation: rows times seeds over one base; what both audits have.

    Attributes:
        name: of the ablation, and what the names of its runs begin with.
        set: what every row sets on top of the base, before itself: also what rows may not set.
        threads: of each run, instead of the base's; it is part of what makes a run repeatable to the bit.
        contrasts: further comparisons, such as a scheme's leave-one-out rows.
        tables: further tables by name, each of the rows named.
        correction: of which comparisons Holm's correction is: those in one measure's ``column``, or the whole
            ``table``.
        resamples: draws of every bootstrap and permutation test.
    """

    name: FolderName = "ablation"
    set: dict[str, Any] = Field(default_factory=dict)
    seeds: list[Seed] = Field(default=[0, 1, 2], min_length=1)
    threads: Positive | None = None
    contrasts: list[Contrast] = Field(default_factory=list)
    tables: dict[FolderName, list[str]] = Field(default_factory=dict)
    correction: Literal["column", "table"] = "column"
    resamples: Positive = 10_000


class InversionAblation(AblationSettings):
    """Of inversions.

    Attributes:
        base: a settings file, relative to the ablation's, or the bare name of a shipped one; null: every default.
        classes: instead of the base's; every row and seed attacks the same ones.
        modes: what every row of a mode sets, after ``set`` and before its own. A table holds its rows in every mode
            that has them.
    """

    audit: Literal["inversion"] = "inversion"
    base: str | None = None
    classes: NamedClasses = None
    modes: dict[Literal["one_step", "rollout"], dict[str, Any]] = Field(default_factory=dict)
    rows: Annotated[list[InversionRow], Field(min_length=1)]


class PerturbationAblation(AblationSettings):
    """Of perturbations; ``base`` is a perturbation's settings file, the bare name of a shipped one, or null."""

    audit: Literal["perturbation"]
    base: str | None = None
    rows: Annotated[list[AblationRow], Field(min_length=1)]


AnyAblation = InversionAblation | PerturbationAblation
