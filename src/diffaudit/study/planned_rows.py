"""Rows as planned: what runs, with which settings, and where its results are kept."""

from dataclasses import dataclass
from pathlib import Path

from diffaudit.settings import AuditSettings
from diffaudit.study.ablation_settings import AnyAblation


@dataclass(frozen=True)
class PlannedRow:
    """A row in one mode: its checked settings, those of its first seed."""

    name: str
    mode: str | None
    is_baseline: bool
    settings: AuditSettings

    @property
    def key(self) -> str:
        """The row's name with its mode: the name of its folder."""
        return row_key(self.name, self.mode)

    def at(self, seed: int) -> AuditSettings:
        """The settings of one seed's run."""
        return self.settings.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class Ablation:
    """A checked ablation and the rows to run."""

    settings: AnyAblation
    rows: tuple[PlannedRow, ...]


def row_key(name: str, mode: str | None) -> str:
    """The row's name with its mode.

    >>> row_key("A+B", "rollout"), row_key("start", None)
    ('rollout-A+B', 'start')
    """
    return name if mode is None else f"{mode}-{name}"


def run_folder(folder: Path, key: str, seed: int) -> Path:
    """Where the run of a row at a seed lies in an ablation's folder."""
    return folder / "runs" / key / str(seed)
