"""What an ablation was asked: rows over one base, every row's settings resolved and checked before any work."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

from diffaudit._faults import faults
from diffaudit._yaml import parse_yaml
from diffaudit.configurations import settings_path
from diffaudit.errors import InvalidSetting
from diffaudit.settings import Finishing, InversionSettings, SettingsError, load_settings
from diffaudit.settings.base import Count, FolderName, Positive, Section, Seed

REFERENCES = ("start", "oracle", "upper", "lower")
"""Rows that are read from the baseline's runs and never run: the start of every attack, its ceiling, photographs."""
GIVEN = ("audit", "name", "seed", "classes", "threads", "reference_rows")
"""What the ablation has keys of its own for, or gives every run by itself."""
SHARED = ("attack", "judging")
"""What a row may not set either, or rows would not be comparable: the ablation sets it for all of them."""

Mode = Literal["one_step", "rollout", None]
RowName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class AblationRow(Section):
    """One row: what it sets on top of the base, in one mode or in several. ``baseline`` None: if it is so named."""

    name: RowName
    mode: Annotated[list[Mode], BeforeValidator(_listed)] = Field(default=[None], min_length=1)
    set: dict[str, Any] = Field(default_factory=dict)
    baseline: bool | None = None


class Contrast(Section):
    """Two rows to compare beside the comparisons with the baseline, by their keys such as ``rollout-A+B``."""

    row: str
    against: str


class AblationSettings(Section):
    """A whole ablation: rows times seeds over one base.

    Attributes:
        base: a settings file, relative to the ablation's, or the bare name of a shipped one.
        set: what every row sets on top of the base, before its mode: the attacker's pictures and models, the judges.
        classes: instead of the base's; every row and seed attacks the same ones.
        threads: of each run, instead of the base's; it is part of what makes a run repeatable to the bit.
        modes: what every row of a mode sets, before its own.
        contrasts: further comparisons, such as a scheme's leave-one-out rows.
        tables: further tables by name, each of the rows named, in every mode that has them.
        correction: of which comparisons Holm's correction is: those in one measure's ``column``, or the whole
            ``table``.
        resamples: draws of every bootstrap and permutation test.
    """

    audit: Literal["inversion"] = "inversion"
    name: FolderName = "ablation"
    base: str = "quick"
    set: dict[str, Any] = Field(default_factory=dict)
    seeds: list[Seed] = Field(default=[0, 1, 2], min_length=1)
    classes: Literal["all"] | Annotated[list[Count], Field(min_length=1)] | None = None
    threads: Positive | None = None
    modes: dict[Literal["one_step", "rollout"], dict[str, Any]] = Field(default_factory=dict)
    rows: Annotated[list[AblationRow], Field(min_length=1)]
    contrasts: list[Contrast] = Field(default_factory=list)
    tables: dict[FolderName, list[str]] = Field(default_factory=dict)
    correction: Literal["column", "table"] = "column"
    resamples: Positive = 10_000


@dataclass(frozen=True)
class PlannedRow:
    """A row in one mode: its checked settings, those of its first seed."""

    name: str
    mode: str | None
    is_baseline: bool
    settings: InversionSettings

    @property
    def key(self) -> str:
        """The row's name with its mode: the name of its folder."""
        return row_key(self.name, self.mode)

    def at(self, seed: int) -> InversionSettings:
        """The settings of one seed's run."""
        return self.settings.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class Ablation:
    """A checked ablation and the rows to run."""

    settings: AblationSettings
    rows: tuple[PlannedRow, ...]


def row_key(name: str, mode: str | None) -> str:
    """The row's name with its mode.

    >>> row_key("A+B", "rollout"), row_key("start", None)
    ('rollout-A+B', 'start')
    """
    return name if mode is None else f"{mode}-{name}"


def load_ablation(path: Path) -> Ablation:
    """Reads an ablation's YAML file and resolves every row.

    Raises:
        SettingsError: the file or its base cannot be read, or it or a row breaks rules; all faults at once.
    """
    values = _mapping(path)
    try:
        settings = AblationSettings.model_validate(values)
    except ValidationError as error:
        raise SettingsError(str(path), faults(error, values)) from error
    try:
        base = settings_path(settings.base) if _is_bare(settings.base) else path.parent / settings.base
        load_settings(base)
    except InvalidSetting as error:
        raise SettingsError(str(path), [str(error).replace("`settings`", "`base`", 1)]) from error
    found: list[str] = []
    resolved = [
        row
        for asked in settings.rows
        if asked.name not in REFERENCES
        for mode in asked.mode
        if (row := _resolved(settings, asked, mode, base, found)) is not None
    ]
    found += _faults_between(settings, resolved)
    if found:
        raise SettingsError(str(path), found)
    return Ablation(settings, tuple(_with_reference_rows(resolved)))


def _resolved(
    settings: AblationSettings, row: AblationRow, mode: Mode, base: Path, found: list[str]
) -> PlannedRow | None:
    """The row in one mode; its faults go to ``found``."""
    key = row_key(row.name, mode)
    overrides: dict[str, Any] = {}
    by_mode = {} if mode is None else settings.modes.get(mode, {})
    for group, barred in ((settings.set, GIVEN), (by_mode, GIVEN + SHARED), (row.set, GIVEN + SHARED)):
        for dotted, value in group.items():
            if dotted.partition(".")[0] in barred or (mode is not None and dotted == "image.mode"):
                found.append(f"`{key}` should leave `{dotted}` to the ablation and its base. Found {value!r}.")
            # What is set last is laid over last, and nothing that was set inside it before is left.
            overrides = {key: kept for key, kept in overrides.items() if not f"{key}.".startswith(f"{dotted}.")}
            overrides[dotted] = value
    if mode is not None:
        overrides["image.mode"] = mode
    overrides |= {
        "seed": settings.seeds[0],
        "name": f"{settings.name}-{key.replace('+', '-')}",
        **({} if settings.classes is None else {"classes": settings.classes}),
        **({} if settings.threads is None else {"threads": settings.threads}),
    }
    try:
        checked = load_settings(base, overrides)
    except SettingsError as error:
        found += [f"{key}: {fault}" for fault in error.faults]
        return None
    return PlannedRow(row.name, mode, row.name == "baseline" if row.baseline is None else row.baseline, checked)


def _faults_between(settings: AblationSettings, rows: list[PlannedRow]) -> list[str]:
    """What no row can see alone: doubles, baselines, and settings that would keep rows from being paired."""
    found = [
        f"`rows` should leave out {name} of the row `{row.name}`: it is read from the baseline's runs. Found {value!r}."
        for row in settings.rows
        if row.name in REFERENCES
        for name, value, empty in (
            ("`set`", row.set, {}),
            ("`mode`", row.mode, [None]),
            ("`baseline`", row.baseline, None),
        )
        if value != empty
    ]
    found += _doubles("seeds", settings.seeds)
    found += _doubles("rows", [row.key.casefold() for row in rows])
    for mode in dict.fromkeys(row.mode for row in rows):
        names = [row.name for row in rows if row.mode == mode and row.is_baseline]
        if len(names) != 1:
            found.append(f"`rows` should hold one baseline of mode {mode}. Found {names}.")
    if rows and isinstance(rows[0].settings.classes, int):
        found.append(f"`classes` should be all or a list: seeds would draw others. Found {rows[0].settings.classes}.")
    if all(row.name in REFERENCES for row in settings.rows):
        found.append(f"`rows` should hold a baseline to run. Found {[row.name for row in settings.rows]}.")
    for row in rows:
        if row.settings.sampling.keep != rows[0].settings.sampling.keep:
            found.append(
                f"`sampling.keep` should be the same in every row, for images are compared in pairs. Found "
                f"{row.settings.sampling.keep} in {row.key} and {rows[0].settings.sampling.keep} in {rows[0].key}."
            )
    keys = {row.key for row in rows} | set(REFERENCES)
    for contrast in settings.contrasts:
        unknown = [key for key in (contrast.row, contrast.against) if key not in keys]
        if unknown:
            found.append(f"`contrasts` should name rows with their mode, such as {rows[0].key}. Found {unknown}.")
    known = {row.name for row in rows} | set(REFERENCES)
    for name, members in settings.tables.items():
        if unknown := [member for member in members if member not in known]:
            found.append(f"`tables.{name}` should name rows. Found {unknown}.")
    return found


def _with_reference_rows(rows: list[PlannedRow]) -> Iterable[PlannedRow]:
    """Each row, reference rows asked of the baselines alone, and of one where a second's would be the same images."""
    images: list[tuple[Any, ...]] = []
    for row in rows:
        wanted = row.is_baseline and start_of(row.settings) not in images
        images += [start_of(row.settings)] if wanted else []
        yield replace(row, settings=row.settings.model_copy(update={"reference_rows": wanted}))


def start_of(settings: InversionSettings) -> tuple[Any, ...]:
    """All that the images of rows `start` and `oracle` depend on, beside the seed."""
    sampling = settings.sampling.model_copy(update={"finishing": Finishing()})
    return settings.attack, settings.classes, settings.embedding.anchor_images, sampling


def _doubles(name: str, values: Iterable[Any]) -> list[str]:
    listed = list(values)
    twice = sorted({value for value in listed if listed.count(value) > 1})
    return [f"`{name}` should name each once. Found {twice} more than once."] if twice else []


def _is_bare(base: str) -> bool:
    return base.replace("-", "_").isidentifier()


def _mapping(path: Path) -> Mapping[str, Any]:
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(str(path), [f"the file should be readable text. Found: {error}."]) from error
    except ValueError as error:
        raise SettingsError(str(path), [f"the file should be YAML. Found: {error}."]) from error
    if not isinstance(values, dict):
        raise SettingsError(str(path), [f"the file should be a mapping of keys. Found a {type(values).__name__}."])
    return values
