"""``ablation.json``: the records of an ablation's runs, row by row, each compared with the baseline of its mode."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffaudit.settings import dump_settings
from diffaudit.study.claims import judged_claims
from diffaudit.study.measured_rows import TableRow, measured_rows, steadiness, threat_model
from diffaudit.study.metrics import vote_rate
from diffaudit.study.planned_rows import Ablation
from diffaudit.study.reference_rows import START_ROWS
from diffaudit.study.row_comparisons import Comparisons
from diffaudit.study.row_images import RowImages, paired
from diffaudit.study.statistics import share_of_gap, value

Json = dict[str, Any]

CLUSTERS = {"inversion": "classes", "perturbation": "images"}
"""What intervals draw, and the tests take as independent."""


def ablation_table(
    ablation: Ablation, folder: Path, *, command: str, failures: Sequence[Mapping[str, Any]] = ()
) -> Json:
    """Return the contents of ``ablation.json`` from the finished runs in ``folder``.

    Rates, means and their intervals are those of :mod:`diffaudit.study.statistics`, clustered as ``clusters`` says: by
    class, or of perturbations by picture, the seeds nested in it. ``versus_baseline`` compares with the baseline of the
    row's own mode, ``versus_start`` with row `start` or, of perturbations, `rebuilt`; ``contrasts`` are those asked
    for. ``p_corrected`` is Holm's over all rows' comparisons with their baselines in the same measure (or over the
    whole table, as ``correction`` says); comparisons with the start and contrasts are families of their own.
    ``secondary`` holds the tests that are shown and not relied on: exact McNemar takes pairs as independent, Wilcoxon
    asks about ranks. Odds are those of the same pairs: images, or of ``transfer_mean`` images and held-out models.
    Rows without a finished run are left out, and told of in ``notes``.
    """
    notes: list[str] = []
    rows = measured_rows(ablation, folder, notes)
    return table_of_rows(ablation, folder, rows, notes, command=command, failures=failures)


def table_of_rows(
    ablation: Ablation,
    folder: Path,
    rows: Sequence[TableRow],
    notes: list[str],
    *,
    command: str,
    failures: Sequence[Mapping[str, Any]] = (),
) -> Json:
    """:func:`ablation_table` of rows that are measured already; ``notes`` are what is to be told of them."""
    audit = ablation.settings.audit
    comparisons = Comparisons(
        resamples=ablation.settings.resamples, correction=ablation.settings.correction, clusters=CLUSTERS[audit]
    )
    reported = [_row(row, rows, comparisons, notes) for row in rows]
    contrasts = _contrasts(ablation, rows, comparisons, notes)
    comparisons.correct(notes)
    return {
        "audit": audit,
        "name": ablation.settings.name,
        "clusters": CLUSTERS[audit],
        "threat_model": threat_model(ablation, folder),
        "rows": reported,
        "contrasts": contrasts,
        "claims": judged_claims(reported) if audit == "inversion" else [],
        "tables": ablation.settings.tables,
        "correction": ablation.settings.correction,
        "failures": [dict(failure) for failure in failures],
        "notes": list(dict.fromkeys(notes)),
        "settings_hash": settings_hash(ablation),
        "command": command,
    }


def settings_hash(ablation: Ablation) -> str:
    """SHA-256 of every row's resolved settings and the seeds."""
    digest = hashlib.sha256(json.dumps(ablation.settings.seeds).encode())
    for row in ablation.rows:
        digest.update(dump_settings(row.settings).encode())
    return digest.hexdigest()


def _row(row: TableRow, rows: Sequence[TableRow], comparisons: Comparisons, notes: list[str]) -> Json:
    baseline = next((other for other in rows if other.is_baseline and other.mode == row.mode), None)
    start = next((other for name in START_ROWS if (other := _reference(name, row.mode, rows)) is not None), None)
    gap = {name: other for name in ("start", "oracle") if (other := _reference(name, row.mode, rows)) is not None}
    metrics: Json = {name: _measure(name, row.images, comparisons.resamples) for name in row.images.columns}
    if "judge_accuracy" in metrics:
        metrics["gap_closed"] = _gap_closed(row, gap, comparisons.resamples)
    seconds = list(row.seconds.values())
    found: Json = {
        "name": row.name,
        "mode": row.mode,
        "baseline": row.is_baseline,
        "reference": row.is_reference,
        "seeds": sorted(set(row.images.seeds.tolist())),
        comparisons.clusters: len(set(row.images.clusters.tolist())),
        "samples": len(row.images.keys),
        "metrics": metrics,
        "stability": steadiness([row.stability[seed] for seed in sorted(row.stability)]),
        "seconds": round(float(np.median(seconds)), 2) if seconds else None,
        "versus_baseline": {},
        "versus_start": {},
    }
    if row.is_reference:
        return found
    if not row.is_baseline and baseline is None:
        its = "its mode's baseline" if row.mode else "the baseline"
        notes.append(f"{row.key}: {its} has no finished run, so it is compared with none.")
    elif not row.is_baseline and baseline is not None:
        found["versus_baseline"] = comparisons.compare("baseline", row.images, baseline.images, _images(gap))
        if lost := set(row.images.seeds.tolist()) - set(baseline.images.seeds.tolist()):
            notes.append(f"{row.key}: compared without seeds {sorted(lost)}, which its baseline has not finished.")
    if start is not None:
        found["versus_start"] = comparisons.compare("start", row.images, start.images)
    return found


def _reference(name: str, mode: str | None, rows: Sequence[TableRow]) -> TableRow | None:
    return next((row for row in rows if row.is_reference and row.name == name and row.mode in (mode, None)), None)


def _measure(name: str, images: RowImages, resamples: int) -> Json:
    generator = np.random.default_rng(0)  # afresh, so that no value depends on which others are asked for
    counted = np.isfinite(images.columns[name])
    column, clusters = images.columns[name][counted], images.clusters[counted]
    if name in images.shares:
        return vote_rate(column.tolist(), clusters.tolist(), resamples=resamples, generator=generator).to_json()
    return value(column, clusters, resamples=resamples, generator=generator).to_json()


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
    return share_of_gap(reached, begun, top, images.clusters, resamples=resamples, generator=generator).to_json()


def _contrasts(ablation: Ablation, rows: Sequence[TableRow], comparisons: Comparisons, notes: list[str]) -> list[Json]:
    by_key = {row.key: row for row in rows}
    found, missing = [], []
    for contrast in ablation.settings.contrasts:
        if contrast.row in by_key and contrast.against in by_key:
            row, against = by_key[contrast.row], by_key[contrast.against]
            metrics = comparisons.compare("contrast", row.images, against.images)
            found.append({"row": contrast.row, "against": contrast.against, "metrics": metrics})
        else:
            missing.append(f"{contrast.row} against {contrast.against}")
    if missing:
        notes.append(f"Not compared, for a run is missing: {', '.join(missing)}.")
    return found
