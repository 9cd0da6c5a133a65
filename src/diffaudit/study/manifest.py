"""A run's folder is claimed for its settings, and its manifest says what made it."""

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from diffaudit._yaml import parse_yaml
from diffaudit.errors import RunConflict
from diffaudit.records import RunFolder, write_atomically, write_json
from diffaudit.settings import AuditSettings, Kind, dump_settings
from diffaudit.study.run import Run

ORACLE = "row-oracle"
"""How the one checkpoint begins that is made with something of the judges': their private pictures."""

PACKAGES = ("diffaudit", "torch", "diffusers", "peft", "transformers", "numpy", "scipy")


def claim(run: Run[Kind]) -> None:
    """Takes the folder for the run's settings, or refuses it.

    Raises:
        RunConflict: the folder holds a run made with other settings (:func:`may_be_taken`), or something else.
    """
    path = run.folder.settings
    refuse_a_file(run.folder.path)
    if not may_be_taken(run.folder, run.settings):
        raise RunConflict(
            f"{run.folder.path} holds a run made with other settings. Choose another --output, or delete it."
        )
    if not path.exists() and run.folder.path.exists() and any(run.folder.path.iterdir()):
        raise RunConflict(f"{run.folder.path} is not empty and holds no run. Choose another --output.")
    wanted = dump_settings(run.settings)
    if not path.exists() or path.read_text() != wanted:
        write_atomically(path, wanted)


def refuse_a_file(folder: Path) -> None:
    """Refuses a folder that cannot be made.

    Raises:
        RunConflict: a file stands in its place, or in that of a folder above it.
    """
    files = [path for path in (folder, *folder.parents) if path.is_file()]
    if files:
        raise RunConflict(f"{files[0]} is a file. Choose another --output.")


def may_be_taken(folder: RunFolder, settings: AuditSettings) -> bool:
    """Whether a run with these settings may go on in the folder, or begin there.

    Where it holds other settings it may, as long as nothing that is kept there would differ: whatever they are before
    the first checkpoint, and before anything is judged where they differ in ``judging`` alone. So a fault that is told
    late costs no attack.
    """
    if not folder.settings.exists():
        return True
    held, wanted = folder.settings.read_text(), dump_settings(settings)
    return held == wanted or _nothing_depends(folder, held, wanted)


def _nothing_depends(folder: RunFolder, held: str, wanted: str) -> bool:
    """Whether nothing that the folder keeps depends on what the two texts of settings differ in."""
    kept = {path.name for path in folder.checkpoints.glob("*")}
    if folder.records.exists() or any(name.startswith(ORACLE) for name in kept):
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
