"""A run's folder: where everything lies, and how it is written so that a kill costs at most a line."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies."""

    path: Path

    @property
    def settings(self) -> Path:
        """Resolved settings."""
        return self.path / "settings.yaml"

    @property
    def manifest(self) -> Path:
        """Versions, hashes, threat model, exit state."""
        return self.path / "manifest.json"

    @property
    def records(self) -> Path:
        """One record a line."""
        return self.path / "records.jsonl"

    @property
    def metrics(self) -> Path:
        """The measures, summarised from the records."""
        return self.path / "metrics.json"

    @property
    def curves(self) -> Path:
        """One curve point a line."""
        return self.path / "curves.jsonl"

    @property
    def health(self) -> Path:
        """One look at the training's health a line."""
        return self.path / "health.jsonl"

    @property
    def images(self) -> Path:
        """PNG files, a folder a row, and `reference`, `source`."""
        return self.path / "images"

    def attention(self, image: int, when: Literal["before", "after"]) -> Path:
        """A perturbation's map of the label's attention, drawn over image number ``image``."""
        return self.images / "attention" / f"{image:05d}-{when}.png"

    def is_finished(self) -> bool:
        """Whether the folder holds a run, whole."""
        return self.manifest.is_file() and json.loads(self.manifest.read_text(encoding="utf-8"))["state"] == "finished"

    @property
    def checkpoints(self) -> Path:
        """Training states, and the rows that were drawn already."""
        return self.path / "checkpoints"

    @property
    def training(self) -> Path:
        """The state of the training after its last checkpoint."""
        return self.checkpoints / "training.safetensors"

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.path / "report.html"


def write_atomically(path: Path, text: str) -> None:
    """Writes a text file under a temporary name and renames it, so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def write_json(path: Path, values: Any) -> None:
    """Writes indented JSON atomically; NaN and infinity are refused."""
    write_atomically(path, json.dumps(values, indent=2, allow_nan=False) + "\n")


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Appends whole lines and flushes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)
        file.flush()


def whole_lines(path: Path) -> Iterator[str]:
    """The lines of a file that were written whole; none where there is no file."""
    if path.exists():
        for line in path.read_bytes().split(b"\n")[:-1]:
            yield line.decode()
