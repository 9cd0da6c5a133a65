"""Settings files: mappings of keys, and one file over another."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffaudit._yaml import parse_yaml
from diffaudit.configurations import settings_path
from diffaudit.errors import DiffauditError, InvalidSetting
from diffaudit.settings.base import Section
from diffaudit.settings.inversion import InversionSettings
from diffaudit.settings.perturbation import PerturbationSettings


class SettingsError(DiffauditError, ValueError):
    """Every fault of a settings file, a line each: key, rule, value found."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{source}: {len(faults)} fault{'s' if len(faults) != 1 else ''}\n{lines}")


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


def read_settings(path: Path) -> dict[str, Any]:
    """The keys of a settings file over those of its ``base``, unchecked.

    ``base`` is another settings file, relative to this one, or the bare name of a shipped configuration, and may have a
    base itself. Sections are laid over key by key. Lists, models by name, what can be of several kinds, and a section
    that says another ``kind`` than the base's are taken whole, so that nothing of what they replace is left in them.

    Raises:
        SettingsError: a file cannot be read, or is no YAML mapping; a base is none, or leads back to itself.
    """
    return _over_bases(path, ())


def _over_bases(path: Path, above: tuple[Path, ...]) -> dict[str, Any]:
    values = read_mapping(path)
    named = values.pop("base", None)
    if named is None:
        return values
    if not isinstance(named, str):
        raise SettingsError(str(path), [f"`base` should be a file or a shipped configuration. Found {named!r}."])
    try:
        base = settings_path(named, key="base", folder=path.parent)
    except InvalidSetting as error:
        raise SettingsError(str(path), [str(error)]) from error
    seen = (*above, path.resolve())
    if base.resolve() in seen:
        raise SettingsError(str(path), [f"`base` should lead to another file. Found {named}, which leads back here."])
    below = _over_bases(base, seen)
    perturbs = "perturbation" in (values.get("audit"), below.get("audit"))
    return _laid_over(below, values, PerturbationSettings if perturbs else InversionSettings)


def _laid_over(below: Mapping[str, Any], values: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """``values`` over ``below``, both of one section: its own sections key by key, all else whole."""
    laid = dict(below)
    for key, value in values.items():
        inner = section.model_fields[key].annotation if key in section.model_fields else None
        if isinstance(inner, type) and issubclass(inner, Section) and _of_one_kind(laid.get(key), value, inner):
            laid[key] = _laid_over(laid[key], value, inner)
        else:
            laid[key] = value
    return laid


def _of_one_kind(below: Any, value: Any, section: type[Section]) -> bool:
    if not (isinstance(below, dict) and isinstance(value, dict)):
        return False
    kinds = section.model_fields.get("kind")
    return kinds is None or "kind" not in value or value["kind"] == below.get("kind", kinds.default)
