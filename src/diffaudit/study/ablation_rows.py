"""The rows of an ablation: every row's settings resolved and checked before any work, all faults at once."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, assert_never

from pydantic import ValidationError

from diffaudit._faults import faults
from diffaudit.configurations import settings_path
from diffaudit.errors import InvalidSetting
from diffaudit.settings import (
    AuditSettings,
    SettingsError,
    load_perturbation,
    load_settings,
    read_mapping,
)
from diffaudit.study.ablation_faults import faults_between
from diffaudit.study.ablation_settings import (
    AblationRow,
    AnyAblation,
    InversionAblation,
    InversionRow,
    Mode,
    PerturbationAblation,
)
from diffaudit.study.planned_rows import Ablation, PlannedRow, row_key
from diffaudit.study.reference_rows import REFERENCES, makers, references_of, without_references

GIVEN = {
    "inversion": ("audit", "name", "seed", "classes", "threads", "reference_rows"),
    "perturbation": ("audit", "name", "seed", "threads"),
}
"""What the ablation has keys of its own for, or gives every run by itself."""
SHARED = {
    "inversion": ("attack", "judging"),
    "perturbation": ("device", "images", "prior", "goal", "judging"),
}
"""What a row may not set either, or rows would not be comparable: the ablation sets it for all of them. The prior of a
perturbation is among it because purification, a defence, is the prior's own."""


def load_ablation(path: Path) -> Ablation:
    """Reads an ablation's YAML file, of the audit that its key ``audit`` names, and resolves every row.

    Raises:
        SettingsError: the file or its base cannot be read, or it or a row breaks rules; all faults at once.
    """
    values = read_mapping(path)
    kind: type[AnyAblation] = PerturbationAblation if values.get("audit") == "perturbation" else InversionAblation
    try:
        settings = kind.model_validate(values)
    except ValidationError as error:
        raise SettingsError(str(path), faults(error, values, kind)) from error
    try:
        base = None if settings.base is None else settings_path(settings.base, key="base", folder=path.parent)
    except InvalidSetting as error:
        raise SettingsError(str(path), [str(error)]) from error
    _load(settings, base, {})
    found: list[str] = []
    references = _references(settings, base)
    resolved = [
        row
        for asked in settings.rows
        if asked.name not in references
        for mode in _modes(asked)
        if (row := _resolved(settings, asked, mode, base, found)) is not None
    ]
    found += faults_between(settings, resolved, references)
    if found:
        raise SettingsError(str(path), found)
    making = makers([(row.settings, row.is_baseline) for row in resolved])
    return Ablation(
        settings,
        tuple(
            row if makes else replace(row, settings=without_references(row.settings))
            for row, makes in zip(resolved, making, strict=True)
        ),
    )


def _load(settings: AnyAblation, base: Path | None, overrides: Mapping[str, Any]) -> AuditSettings:
    """The base with ``overrides`` laid over it, as settings of the ablation's audit."""
    match settings:
        case InversionAblation():
            return load_settings(base, overrides)
        case PerturbationAblation():
            return load_perturbation(base, overrides)
        case _:
            assert_never(settings)


def _references(settings: AnyAblation, base: Path | None) -> tuple[str, ...]:
    """The names of the rows that are read from the baseline's runs, whether the file lists them or not."""
    if isinstance(settings, InversionAblation):
        return REFERENCES
    judging = {dotted: value for dotted, value in settings.set.items() if dotted.partition(".")[0] == "judging"}
    try:
        return references_of(load_perturbation(base, judging))
    except SettingsError:  # its faults are told of with every row
        return references_of(load_perturbation(base))


def _modes(row: AblationRow) -> list[Mode]:
    return row.mode if isinstance(row, InversionRow) else [None]


def _resolved(
    settings: AnyAblation, row: AblationRow, mode: Mode, base: Path | None, found: list[str]
) -> PlannedRow | None:
    """The row in one mode; its faults go to ``found``."""
    key = row_key(row.name, mode)
    given = GIVEN[settings.audit]
    shared = given + SHARED[settings.audit]
    layers = [(settings.set, given), (row.set, shared)]
    fixed: dict[str, Any] = {"seed": settings.seeds[0], "name": f"{settings.name}-{key.replace('+', '-')}"}
    if settings.threads is not None:
        fixed["threads"] = settings.threads
    if isinstance(settings, InversionAblation):
        if settings.classes is not None:
            fixed["classes"] = settings.classes
        if mode is not None:
            fixed["image.mode"] = mode
            layers.insert(1, (settings.modes.get(mode, {}), shared))
    overrides: dict[str, Any] = {}
    for group, barred in layers:
        for dotted, value in group.items():
            if dotted.partition(".")[0] in barred or dotted in fixed:
                found.append(f"`{key}` should leave `{dotted}` to the ablation and its base. Found {value!r}.")
            # What is set last is laid over last, and nothing that was set inside it before is left.
            overrides = {key: kept for key, kept in overrides.items() if not f"{key}.".startswith(f"{dotted}.")}
            overrides[dotted] = value
    try:
        checked = _load(settings, base, overrides | fixed)
    except SettingsError as error:
        found += [f"{key}: {fault}" for fault in error.faults]
        return None
    return PlannedRow(row.name, mode, row.name == "baseline" if row.baseline is None else row.baseline, checked)
