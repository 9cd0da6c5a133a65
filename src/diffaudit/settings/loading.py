"""Settings from YAML and back: overrides laid over a file, every fault found at once, of either audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from diffaudit._faults import faults
from diffaudit._yaml import parse_yaml
from diffaudit.errors import DiffauditError
from diffaudit.settings.inversion import InversionSettings
from diffaudit.settings.perturbation import PerturbationSettings

AuditSettings = InversionSettings | PerturbationSettings
Kind = TypeVar("Kind", InversionSettings, PerturbationSettings)


class SettingsError(DiffauditError, ValueError):
    """Every fault of a settings file, a line each: key, rule, value found."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{source}: {len(faults)} fault{'s' if len(faults) != 1 else ''}\n{lines}")


def load_settings(path: Path | None, overrides: Mapping[str, Any] | None = None) -> InversionSettings:
    """Reads an inversion's YAML file (None: the defaults), lays ``overrides`` (dotted keys) over it and checks it.

    Raises:
        SettingsError: the file is missing, is no YAML mapping, or breaks rules; all faults at once.
    """
    return _loaded(path, overrides, InversionSettings)


def load_perturbation(path: Path | None, overrides: Mapping[str, Any] | None = None) -> PerturbationSettings:
    """As :func:`load_settings`, for a perturbation's."""
    return _loaded(path, overrides, PerturbationSettings)


def load_audit(path: Path) -> AuditSettings:
    """The settings of either audit, as the file's own key ``audit`` says."""
    values = read_mapping(path)
    return load_perturbation(path) if values.get("audit") == "perturbation" else load_settings(path)


def check_settings(values: Mapping[str, Any], source: str = "settings") -> InversionSettings:
    """Checks an inversion's mapping; raises :class:`SettingsError` with every fault."""
    return _checked(values, source, InversionSettings)


def check_perturbation(values: Mapping[str, Any], source: str = "settings") -> PerturbationSettings:
    """As :func:`check_settings`, for a perturbation's."""
    return _checked(values, source, PerturbationSettings)


def _loaded(path: Path | None, overrides: Mapping[str, Any] | None, kind: type[Kind]) -> Kind:
    source = "settings" if path is None else str(path)
    values = {} if path is None else read_mapping(path)
    unplaced = []
    for key, value in (overrides or {}).items():
        top = key.partition(".")[0]
        if top != key and top not in values and isinstance(default := kind().model_dump(mode="json").get(top), list):
            values[top] = default
        try:
            values = _lay_over(values, key.split("."), value)
        except LookupError as error:
            unplaced.append(f"`{key}` should lead to a setting. Found {error.args[0]}.")
    if unplaced:
        raise SettingsError(source, unplaced + _faults_of(values, kind))
    return _checked(values, source, kind)


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys of a YAML file, unchecked; none where it is empty.

    Raises:
        SettingsError: the file cannot be read, or is no YAML mapping.
    """
    source = str(path)
    try:
        values = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(source, [f"the file should be readable. Found: {error.strerror}."]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(source, ["the file should be text in UTF-8. Found other bytes."]) from error
    except ValueError as error:
        raise SettingsError(source, [f"the file should be YAML. Found: {error}."]) from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(source, [f"the file should be a mapping of keys. Found a {type(values).__name__}."])
    return values


def _checked(values: Mapping[str, Any], source: str, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(source, faults(error, values)) from error


def dump_settings(settings: AuditSettings) -> str:
    """The resolved settings as YAML, complete: reading it back gives equal settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _faults_of(values: Mapping[str, Any], kind: type[Kind]) -> list[str]:
    try:
        _checked(values, "settings", kind)
    except SettingsError as error:
        return error.faults
    return []


def _lay_over(node: Any, keys: Sequence[str], value: Any) -> Any:
    """``node`` with ``value`` at the end of ``keys``; what lies on the way is copied, as YAML aliases may share it."""
    if not keys:
        return value
    first, *rest = keys
    if isinstance(node, dict):
        below = node.get(first)
        return {**node, first: _lay_over({} if below is None else below, rest, value)}
    if not isinstance(node, list):
        raise LookupError(f"no keys where `{first}` is looked for")
    if not first.isdecimal() or int(first) >= len(node):
        raise LookupError(f"a list of {len(node)} where item `{first}` is looked for")
    place = int(first)
    return [*node[:place], _lay_over(node[place], rest, value), *node[place + 1 :]]
