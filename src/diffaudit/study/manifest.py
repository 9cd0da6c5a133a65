"""A run's folder is claimed for its settings, and its manifest says what made it."""

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from diffaudit.errors import RunConflict
from diffaudit.inversion.attacker import HAS, HAS_NOT, Attacker
from diffaudit.judging.judge import Judge
from diffaudit.records import write_atomically, write_json
from diffaudit.settings import dump_settings
from diffaudit.study.run import Run

PACKAGES = ("diffaudit", "torch", "diffusers", "peft", "transformers", "numpy", "scipy")


def claim(run: Run) -> None:
    """Takes the folder for these settings, or refuses it."""
    wanted = dump_settings(run.settings)
    path = run.folder.settings
    if path.exists():
        if path.read_text() != wanted:
            raise RunConflict(
                f"{run.folder.path} holds a run made with other settings. Choose another --output, or delete it."
            )
        return
    if run.folder.path.exists() and any(run.folder.path.iterdir()):
        raise RunConflict(f"{run.folder.path} is not empty and holds no run. Choose another --output.")
    write_atomically(path, wanted)


def begin_manifest(run: Run, command: str) -> dict[str, Any]:
    """Writes what is known before any work, and returns it."""
    path = run.folder.manifest
    earlier = json.loads(path.read_text()) if path.exists() else {}
    manifest: dict[str, Any] = {
        "diffaudit": version("diffaudit"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": run.settings.device,
        "threads": run.settings.threads or torch.get_num_threads(),
        "seed": run.settings.seed,
        "command": command,
        "threat_model": {"has": list(HAS), "has_not": list(HAS_NOT)},
        "is_attack": True,
        "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
        "tries": earlier.get("tries", 0) + 1,
        "state": "running",
    }
    write_json(path, manifest)
    return manifest


def finish_manifest(
    run: Run, manifest: dict[str, Any], attacker: Attacker, judge: Judge, seconds: dict[str, float]
) -> None:
    """Writes it again with what the run opened, how long it took, and that it has ended."""
    models = {
        "target": attacker.classifier.fingerprint,
        "identity encoder": attacker.encoder.fingerprint,
        "judge identity encoder": judge.encoder.fingerprint,
        **{f"judge {name}": classifier.fingerprint for name, classifier in judge.classifiers.items()},
    }
    manifest |= {
        "models": {name: {"fingerprint": value} for name, value in models.items()},
        "num_classes": attacker.public.log_probabilities.shape[1],
        "seconds": seconds,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "state": "finished",
    }
    write_json(run.folder.manifest, manifest)
