"""Rows of an ablation as measured: the images of their finished runs, and what those runs say of themselves."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, assert_never

import numpy as np

from diffaudit.records import RunFolder, read_curves
from diffaudit.settings import AuditSettings, InversionSettings, PerturbationSettings, UncertaintyWeights
from diffaudit.study.inversion_images import inversion_reader, inversion_seconds
from diffaudit.study.learned_weights import weights_at_bounds
from diffaudit.study.perturbation_images import perturbation_reader, perturbation_seconds
from diffaudit.study.planned_rows import Ablation, PlannedRow, row_key, run_folder
from diffaudit.study.reference_rows import START_ROWS, references_of, start_of
from diffaudit.study.row_images import RowImages

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TableRow:
    """A row as measured: its images, and what its runs say of themselves, by seed."""

    name: str
    mode: str | None
    images: RowImages
    is_baseline: bool = False
    is_reference: bool = False
    stability: Mapping[int, Json] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The row's name with its mode."""
        return row_key(self.name, self.mode)


def measured_rows(ablation: Ablation, folder: Path, notes: list[str]) -> list[TableRow]:
    """The rows of the file in order, those that are read from the baselines' runs around them.

    Rows without a finished run are left out; ``notes`` is told of every seed that is missing.
    """
    rows, references = [], []
    lacking: dict[int, list[str]] = {}
    baselines = [row.settings for row in ablation.rows if row.is_baseline]
    starts = [start_of(settings) for settings in baselines if isinstance(settings, InversionSettings)]
    one_start = all(start == starts[0] for start in starts)
    for planned in ablation.rows:
        runs = _finished_runs(ablation, folder, planned)
        missing = len(ablation.settings.seeds) - len(runs)
        if missing:
            lacking.setdefault(missing, []).append(planned.key)
        if not runs:
            continue
        match planned.settings:
            case InversionSettings():
                read, seconds_of = inversion_reader(runs), inversion_seconds
            case PerturbationSettings():
                read, seconds_of = perturbation_reader(runs), perturbation_seconds
            case _:
                assert_never(planned.settings)
        metrics = {seed: json.loads(run.metrics.read_text(encoding="utf-8")) for seed, run in runs.items()}
        timed = {seed: metrics[seed] for seed, run in runs.items() if _is_timed(planned.settings, run)}
        said = _bounds(planned.settings, runs)
        rows.append(
            TableRow(
                planned.name,
                planned.mode,
                read("attack", said),
                is_baseline=planned.is_baseline,
                stability={seed: found["stability"] for seed, found in metrics.items() if "stability" in found},
                seconds=_known({seed: seconds_of(found, "attack") for seed, found in timed.items()}),
            )
        )
        notes += [f"{planned.key}: {note}" for note in said]
        for name in references_of(planned.settings):
            images = read(name, [])
            if images.keys:
                mode = None if one_start else planned.mode
                seconds = _known({seed: seconds_of(found, name) for seed, found in timed.items()})
                references.append(TableRow(name, mode, images, is_reference=True, seconds=seconds))
    for missing, keys in lacking.items():
        notes.append(f"{missing} of {len(ablation.settings.seeds)} seeds have no finished run: {', '.join(keys)}.")
    before = [row for row in references if row.name in START_ROWS]
    return before + rows + [row for row in references if row.name not in START_ROWS]


def threat_model(ablation: Ablation, folder: Path) -> Json:
    """Who has what, as the first finished run's manifest has it: rows share the audit, and so the sides. Else empty."""
    for row in ablation.rows:
        for run in _finished_runs(ablation, folder, row).values():
            stated: Json = json.loads(run.manifest.read_text(encoding="utf-8")).get("threat_model", {})
            return stated
    return {}


def steadiness(runs: Sequence[Json]) -> Json:
    """The stability of a row: means over its runs, and by run its terms' variation and the median of these."""
    if not any(run["steps"] for run in runs):
        return {}
    terms = dict.fromkeys(name for run in runs for name in run["coefficient_of_variation"])
    by_run = [
        [variation for variation in run["coefficient_of_variation"].values() if variation is not None] for run in runs
    ]
    return {
        "steps": runs[0]["steps"],
        "coefficient_of_variation": {
            name: _mean_known([run["coefficient_of_variation"].get(name) for run in runs]) for name in terms
        },
        "by_run": [dict(run["coefficient_of_variation"]) for run in runs],
        "variation": [float(np.median(found)) if found else None for found in by_run],
        "clipped_steps": _mean_known([run["clipped_steps"] for run in runs]),
        "irregular_steps": _mean_known([run["irregular_steps"] for run in runs]),
    }


def _bounds(settings: AuditSettings, runs: Mapping[int, RunFolder]) -> list[str]:
    """A sentence for every group whose learned weight ended at a bound."""
    if not (isinstance(settings, InversionSettings) and isinstance(settings.weighting, UncertaintyWeights)):
        return []  # no curve is read for nothing
    ended: dict[str, list[int]] = {}
    for seed, run in runs.items():
        for group in weights_at_bounds(read_curves(run.curves), settings):
            ended.setdefault(group, []).append(seed)
    return [f"the learned weight of {group} ended at its bound in seeds {found}." for group, found in ended.items()]


def _finished_runs(ablation: Ablation, folder: Path, row: PlannedRow) -> dict[int, RunFolder]:
    runs = {seed: RunFolder(run_folder(folder, row.key, seed)) for seed in ablation.settings.seeds}
    return {seed: run for seed, run in runs.items() if run.is_finished()}


def _is_timed(settings: AuditSettings, run: RunFolder) -> bool:
    """Whether all that the run took is known: of an inversion made in several tries, the earlier ones' is lost."""
    tries: int = json.loads(run.manifest.read_text(encoding="utf-8"))["tries"]
    return tries == 1 or isinstance(settings, PerturbationSettings)  # whose batches keep their own


def _known(seconds: Mapping[int, float | None]) -> dict[int, float]:
    return {seed: spent for seed, spent in seconds.items() if spent is not None}


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
