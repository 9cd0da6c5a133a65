"""Settings from YAML and back: overrides laid over a file, every fault found at once, of either audit."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from diffaudit._faults import faults
from diffaudit.settings.files import SettingsError, read_settings
from diffaudit.settings.inversion import InversionSettings
from diffaudit.settings.perturbation import PerturbationSettings

AuditSettings = InversionSettings | PerturbationSettings
Kind = TypeVar("Kind", InversionSettings, PerturbationSettings)


def load_settings(path: Path | None, overrides: Mapping[str, Any] | None = None) -> InversionSettings:
    """Reads an inversion's YAML file (None: the defaults), lays ``overrides`` (dotted keys) over it and checks it.

    A file may lie over another one: see :func:`~diffaudit.settings.files.read_settings`.

    Raises:
        SettingsError: the file or its base is missing, is no YAML mapping, or breaks rules; all faults at once.
    """
    return _loaded(path, overrides, InversionSettings)


def load_perturbation(path: Path | None, overrides: Mapping[str, Any] | None = None) -> PerturbationSettings:
    """As :func:`load_settings`, for a perturbation's."""
    return _loaded(path, overrides, PerturbationSettings)


def load_audit(path: Path, overrides: Mapping[str, Any] | None = None) -> AuditSettings:
    """As :func:`load_settings`, of either audit, as the file's own key ``audit`` says."""
    values = read_settings(path)
    if values.get("audit") == "perturbation":
        return _laid_over(values, overrides, str(path), PerturbationSettings)
    return _laid_over(values, overrides, str(path), InversionSettings)


def check_settings(values: Mapping[str, Any], source: str = "settings") -> InversionSettings:
    """Checks an inversion's mapping; raises :class:`SettingsError` with every fault."""
    return _checked(values, source, InversionSettings)


def check_perturbation(values: Mapping[str, Any], source: str = "settings") -> PerturbationSettings:
    """As :func:`check_settings`, for a perturbation's."""
    return _checked(values, source, PerturbationSettings)


def _loaded(path: Path | None, overrides: Mapping[str, Any] | None, kind: type[Kind]) -> Kind:
    if path is None:
        return _laid_over({}, overrides, "settings", kind)
    return _laid_over(read_settings(path), overrides, str(path), kind)


def _laid_over(values: dict[str, Any], overrides: Mapping[str, Any] | None, source: str, kind: type[Kind]) -> Kind:
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


def _checked(values: Mapping[str, Any], source: str, kind: type[Kind]) -> Kind:
    try:
        return kind.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(source, faults(error, values, kind)) from error


def dump_settings(settings: AuditSettings) -> str:
    """The resolved settings as YAML, complete: reading it back gives equal settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def settings_schema(kind: type[AuditSettings]) -> dict[str, Any]:
    """The JSON schema of a settings file: every key of the settings, and ``base``."""
    schema = kind.model_json_schema()
    based = {"type": ["string", "null"], "default": None, "description": "A settings file, or a shipped one by name."}
    return {**schema, "properties": {"base": based, **schema["properties"]}}


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
