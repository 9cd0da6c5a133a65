"""``ablation.json``: the records of an ablation's runs, row by row, each compared with the baseline of its mode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffaudit.records import Record, RunFolder, read_records
from diffaudit.settings import dump_settings
from diffaudit.study.ablation_settings import REFERENCES, Ablation, PlannedRow, row_key, start_of
from diffaudit.study.claims import judged_claims
from diffaudit.study.metrics import vote_rate
from diffaudit.study.row_comparisons import Comparisons, is_share
from diffaudit.study.row_images import RowImages, paired, row_images
from diffaudit.study.statistics import share_of_gap, value

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class TableRow:
    """A row as measured: its images, and what its runs say of themselves, by seed."""

    name: str
    mode: str | None
    is_baseline: bool
    images: RowImages
    stability: Mapping[int, Json] = field(default_factory=dict)
    seconds: Mapping[int, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The row's name with its mode."""
        return row_key(self.name, self.mode)


def ablation_table(
    ablation: Ablation, folder: Path, *, command: str, failures: Sequence[Mapping[str, Any]] = ()
) -> Json:
    """Return the contents of ``ablation.json`` from the finished runs in ``folder``.

    Rates, means and their intervals are those of :mod:`diffaudit.study.statistics`, clustered by class with the seeds
    nested in it. ``versus_baseline`` compares with the baseline of the row's own mode, ``versus_start`` with row
    `start`; ``contrasts`` are those asked for. ``p_corrected`` is Holm's over all rows' comparisons with their
    baselines in the same measure (or over the whole table, as ``correction`` says); comparisons with the start and
    contrasts are families of their own. ``secondary`` holds the tests that are shown and not relied on: exact McNemar
    (binary measures) takes images as independent, Wilcoxon asks about ranks. Rows without a finished run are left out,
    and told of in ``notes``.
    """
    notes: list[str] = []
    rows = _measured_rows(ablation, folder, notes)
    comparisons = Comparisons(resamples=ablation.settings.resamples, correction=ablation.settings.correction)
    reported = [_row(row, rows, comparisons, notes) for row in rows]
    contrasts = _contrasts(ablation, rows, comparisons, notes)
    comparisons.correct(notes)
    return {
        "audit": ablation.settings.audit,
        "name": ablation.settings.name,
        "rows": reported,
        "contrasts": contrasts,
        "claims": judged_claims(reported),
        "tables": ablation.settings.tables,
        "correction": ablation.settings.correction,
        "failures": [dict(failure) for failure in failures],
        "notes": list(dict.fromkeys(notes)),
        "settings_hash": settings_hash(ablation),
        "command": command,
    }


def run_folder(folder: Path, key: str, seed: int) -> Path:
    """Where the run of a row at a seed lies."""
    return folder / "runs" / key / str(seed)


def settings_hash(ablation: Ablation) -> str:
    """SHA-256 of every row's resolved settings and the seeds."""
    digest = hashlib.sha256(json.dumps(ablation.settings.seeds).encode())
    for row in ablation.rows:
        digest.update(dump_settings(row.settings).encode())
    return digest.hexdigest()


def _measured_rows(ablation: Ablation, folder: Path, notes: list[str]) -> list[TableRow]:
    """The rows of the file in order, those that are read from the baselines' runs around them."""
    rows, references = [], []
    same = len({repr(start_of(row.settings)) for row in ablation.rows if row.is_baseline}) == 1
    for planned in ablation.rows:
        runs = _finished_runs(ablation, folder, planned)
        missing = len(ablation.settings.seeds) - len(runs)
        if missing:
            notes.append(f"{planned.key}: {missing} of {len(ablation.settings.seeds)} seeds have no finished run.")
        if not runs:
            continue
        records = {seed: read_records(run.records) for seed, run in runs.items()}
        metrics = {seed: json.loads(run.metrics.read_text(encoding="utf-8")) for seed, run in runs.items()}
        seconds = {seed: spent for seed, run in runs.items() if (spent := _seconds(run, metrics[seed])) is not None}
        stability = {seed: found["stability"] for seed, found in metrics.items()}
        said: list[str] = []
        rows.append(
            TableRow(
                planned.name,
                planned.mode,
                planned.is_baseline,
                row_images(_of_row(records, "attack"), notes=said),
                stability,
                seconds,
            )
        )
        notes += [f"{planned.key}: {note}" for note in said]
        for name in REFERENCES if planned.settings.reference_rows else ():
            images = row_images(_of_row(records, name))
            if images.keys:
                references.append(TableRow(name, None if same else planned.mode, False, images))
    before = [row for row in references if row.name == "start"]
    return before + rows + [row for row in references if row.name != "start"]


def _finished_runs(ablation: Ablation, folder: Path, row: PlannedRow) -> dict[int, RunFolder]:
    runs = {seed: RunFolder(run_folder(folder, row.key, seed)) for seed in ablation.settings.seeds}
    return {seed: run for seed, run in runs.items() if run.is_finished()}


def _of_row(records: Mapping[int, Sequence[Record]], row: str) -> dict[int, list[Record]]:
    return {seed: [record for record in found if record.row == row] for seed, found in records.items()}


def _seconds(run: RunFolder, metrics: Json) -> float | None:
    """Training and drawing the attack's images; None for a run that was stopped, whose earlier seconds are lost."""
    spent: Mapping[str, float] = metrics["seconds"]
    if json.loads(run.manifest.read_text(encoding="utf-8"))["tries"] > 1 or "train" not in spent:
        return None
    drawn = 1 + sum(row in metrics["reference"] for row in ("start", "oracle"))  # each row draws as many
    return spent["train"] + spent.get("sample", 0.0) / drawn


def _row(row: TableRow, rows: Sequence[TableRow], comparisons: Comparisons, notes: list[str]) -> Json:
    baseline = next((other for other in rows if other.is_baseline and other.mode == row.mode), None)
    references = {
        name: other for name in ("start", "oracle") if (other := _reference(name, row.mode, rows)) is not None
    }
    metrics: Json = {name: _measure(name, row.images, comparisons.resamples) for name in row.images.columns}
    metrics["gap_closed"] = _gap_closed(row, references, comparisons.resamples)
    seconds = list(row.seconds.values())
    found: Json = {
        "name": row.name,
        "mode": row.mode,
        "baseline": row.is_baseline,
        "seeds": sorted(set(row.images.seeds.tolist())),
        "classes": len(set(row.images.classes.tolist())),
        "samples": len(row.images.keys),
        "metrics": metrics,
        "stability": steadiness([row.stability[seed] for seed in sorted(row.stability)]),
        "seconds": round(sum(seconds) / len(seconds), 2) if seconds else None,
        "versus_baseline": {},
        "versus_start": {},
    }
    if row.name not in REFERENCES and not row.is_baseline:
        if baseline is None:
            notes.append(f"{row.key}: its mode's baseline has no finished run, so it is compared with none.")
        else:
            found["versus_baseline"] = comparisons.compare("baseline", row.images, baseline.images, _images(references))
            if lost := set(row.images.seeds.tolist()) - set(baseline.images.seeds.tolist()):
                notes.append(f"{row.key}: compared without seeds {sorted(lost)}, which its baseline has not finished.")
    if row.name not in REFERENCES and "start" in references:
        found["versus_start"] = comparisons.compare("start", row.images, references["start"].images)
    return found


def _reference(name: str, mode: str | None, rows: Sequence[TableRow]) -> TableRow | None:
    return next((row for row in rows if row.name == name and row.mode in (mode, None)), None)


def _measure(name: str, images: RowImages, resamples: int) -> Json:
    generator = np.random.default_rng(0)  # afresh, so that no value depends on which others are asked for
    column = images.columns[name]
    if is_share(name):
        return vote_rate(column.tolist(), images.classes.tolist(), resamples=resamples, generator=generator).to_json()
    return value(column, images.classes, resamples=resamples, generator=generator).to_json()


def _images(references: Mapping[str, TableRow]) -> dict[str, RowImages]:
    return {name: row.images for name, row in references.items()}


def _gap_closed(row: TableRow, references: Mapping[str, TableRow], resamples: int) -> Json | None:
    """The share of the gap in judge accuracy from `start` to `oracle` that the row closes; None where there is none."""
    if len(references) < 2 or row.name in ("upper", "lower"):
        return None
    images, start, oracle = paired(row.images, references["start"].images, references["oracle"].images)
    reached, begun, top = (part.columns["judge_accuracy"] for part in (images, start, oracle))
    if not images.keys or top.mean() <= begun.mean():
        return None
    generator = np.random.default_rng(0)
    return share_of_gap(reached, begun, top, images.classes, resamples=resamples, generator=generator).to_json()


def steadiness(runs: Sequence[Json]) -> Json:
    """The stability of a row: means over its runs, and ``variation``, each run's median over its terms."""
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
        "variation": [float(np.median(found)) if found else None for found in by_run],
        "clipped_steps": _mean_known([run["clipped_steps"] for run in runs]),
        "irregular_steps": _mean_known([run["irregular_steps"] for run in runs]),
    }


def _mean_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _contrasts(ablation: Ablation, rows: Sequence[TableRow], comparisons: Comparisons, notes: list[str]) -> list[Json]:
    by_key = {row.key: row for row in rows}
    found = []
    for contrast in ablation.settings.contrasts:
        if contrast.row in by_key and contrast.against in by_key:
            row, against = by_key[contrast.row], by_key[contrast.against]
            metrics = comparisons.compare("contrast", row.images, against.images)
            found.append({"row": contrast.row, "against": contrast.against, "metrics": metrics})
        else:
            notes.append(f"{contrast.row} against {contrast.against}: not compared, for a run is missing.")
    return found
