"""diffaudit audits image classifiers with a diffusion prior: what do they leak, and what fools them?

Nothing is loaded until it is asked for: ``import diffaudit`` reads neither torch nor pydantic.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffaudit.api import invert, perturb
    from diffaudit.errors import DiffauditError
    from diffaudit.events import Event
    from diffaudit.records import (
        PerturbationRecord,
        Record,
        read_course,
        read_curves,
        read_perturbation_records,
        read_records,
    )
    from diffaudit.settings import (
        InversionSettings,
        PerturbationSettings,
        SettingsError,
        check_perturbation,
        check_settings,
        dump_settings,
        load_perturbation,
        load_settings,
    )

    __version__: str

__all__ = [
    "DiffauditError",
    "Event",
    "InversionSettings",
    "PerturbationRecord",
    "PerturbationSettings",
    "Record",
    "SettingsError",
    "__version__",
    "check_perturbation",
    "check_settings",
    "dump_settings",
    "invert",
    "load_perturbation",
    "load_settings",
    "perturb",
    "read_course",
    "read_curves",
    "read_perturbation_records",
    "read_records",
]

_HOMES = {
    "DiffauditError": "errors",
    "Event": "events",
    "InversionSettings": "settings",
    "PerturbationRecord": "records",
    "PerturbationSettings": "settings",
    "Record": "records",
    "SettingsError": "settings",
    "check_perturbation": "settings",
    "check_settings": "settings",
    "dump_settings": "settings",
    "invert": "api",
    "load_perturbation": "settings",
    "load_settings": "settings",
    "perturb": "api",
    "read_course": "records",
    "read_curves": "records",
    "read_perturbation_records": "records",
    "read_records": "records",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = _installed_version()
    elif name in _HOMES:
        value = getattr(import_module(f"diffaudit.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'diffaudit' has no attribute {name!r}")
    globals()[name] = value  # the next look-up finds it without coming here
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def _installed_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("diffaudit")
    except PackageNotFoundError:  # a source tree on the path, not installed
        return "0+unknown"
