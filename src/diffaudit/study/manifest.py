"""A run's folder is claimed for its settings, and its manifest says what made it."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from diffaudit._yaml import parse_yaml
from diffaudit.errors import RunConflict
from diffaudit.records import RunFolder, write_atomically, write_json
from diffaudit.settings import Kind, dump_settings
from diffaudit.study.run import Run

ORACLE = "row-oracle.safetensors"
"""The one checkpoint that is made with something of the judges': their private pictures."""

PACKAGES = ("diffaudit", "torch", "diffusers", "peft", "transformers", "numpy", "scipy")


def claim(run: Run[Kind]) -> None:
    """Takes the folder for these settings, or refuses it.

    A folder with other settings is taken where nothing that is kept there would differ: whatever they are before the
    first checkpoint, and before anything is judged where they differ in ``judging`` alone. So a fault that is told late
    costs no attack.

    Raises:
        RunConflict: the folder holds a run made with other settings, or something else.
    """
    wanted = dump_settings(run.settings)
    path = run.folder.settings
    if path.exists():
        held = path.read_text()
        if held != wanted:
            if not _nothing_depends(run.folder, held, wanted):
                raise RunConflict(
                    f"{run.folder.path} holds a run made with other settings. Choose another --output, or delete it."
                )
            write_atomically(path, wanted)
        return
    if run.folder.path.exists() and any(run.folder.path.iterdir()):
        raise RunConflict(f"{run.folder.path} is not empty and holds no run. Choose another --output.")
    write_atomically(path, wanted)


def _nothing_depends(folder: RunFolder, held: str, wanted: str) -> bool:
    """Whether nothing that the folder keeps depends on what the two texts of settings differ in."""
    kept = {path.name for path in folder.checkpoints.glob("*")}
    if folder.records.exists() or ORACLE in kept:
        return False
    before, after = (parse_yaml(text) | {"judging": None} for text in (held, wanted))
    return not kept or bool(before == after)


def begin_manifest(run: Run[Kind], command: str, *, has: Sequence[str], has_not: Sequence[str]) -> dict[str, Any]:
    """What is known before any work; the attacker ``has`` and ``has_not`` these. :func:`hold` writes it."""
    path = run.folder.manifest
    earlier = json.loads(path.read_text()) if path.exists() else {}
    return {
        "diffaudit": version("diffaudit"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": run.settings.device,
        "threads": run.settings.threads or torch.get_num_threads(),
        "seed": run.settings.seed,
        "command": command,
        "threat_model": {"has": list(has), "has_not": list(has_not)},
        "is_attack": True,
        "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
        "tries": earlier.get("tries", 0) + 1,
        "state": "running",
        "models": earlier.get("models", {}),
        "data": earlier.get("data", {}),
    }


def hold(run: Run[Kind], manifest: dict[str, Any], models: Mapping[str, str], data: Mapping[str, str]) -> None:
    """Writes the manifest with the hashes of what the attack opened, or refuses to go on with others of the same names.

    Settings name files and Python objects; what these hold may have changed since an earlier try. What a try that is
    refused finds stays as it is.

    Raises:
        RunConflict: something is kept that was made with other models or pictures.
    """
    opened = {"models": _marked(models), "data": _marked(data)}
    if any(run.folder.checkpoints.glob("*")):
        for kind, found in opened.items():
            other = [name for name, mark in found.items() if manifest[kind].get(name, mark) != mark]
            if other:
                raise RunConflict(
                    f"{run.folder.path} holds what was made with other {kind} of these names: {', '.join(other)}. "
                    "Put back what was there, choose another --output, or delete it."
                )
    manifest |= opened
    write_json(run.folder.manifest, manifest)


def finish_manifest(
    run: Run[Kind],
    manifest: dict[str, Any],
    models: Mapping[str, str],
    data: Mapping[str, str],
    *,
    num_classes: int,
    seconds: Mapping[str, float],
) -> None:
    """Writes it again with the hashes of all that the run opened, how long it took, and that it has ended."""
    manifest |= {
        "models": _marked(models),
        "data": _marked(data),
        "num_classes": num_classes,
        "seconds": dict(seconds),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "state": "finished",
    }
    write_json(run.folder.manifest, manifest)


def _marked(marks: Mapping[str, str]) -> dict[str, dict[str, str]]:
    return {name: {"fingerprint": mark} for name, mark in marks.items()}
