"""What an ablation's table reads of a perturbation's runs: their images, each picture a cluster, and the seconds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from diffaudit.records import PerturbationRecord, RunFolder, read_perturbation_records
from diffaudit.study.perturbation_metrics import (
    DISTANCES,
    counting,
    defended_success,
    kept,
    models_of,
    success_if_kept,
    success_on_right,
    success_where_all_right,
)
from diffaudit.study.row_images import Measures, Reader, RowImages, of_row, tabulated


def perturbation_images(
    records: Mapping[int, Sequence[PerturbationRecord]], models: Mapping[str, str], *, notes: list[str] | None = None
) -> RowImages:
    """The images of one row from its records by seed; ``models`` gives each model's role.

    Columns: ``transfer_mean`` and ``white_box_mean`` (:func:`~diffaudit.study.perturbation_metrics.success_on_right`
    of the held-out models and of the surrogates), ``white_box_all_right`` (the surrogates where every model was right),
    where labels can be asked again ``label_kept``, ``transfer_kept`` and ``white_box_kept``, ``transfer.<model>``,
    ``sibling.<model>``, ``defended.<defence>`` (the mean over the held-out models), the distances, and ``iterations``.
    In a share, an image that no model got right does not count; nor does, in the distances and in ``iterations``, one
    that does not count for transfer (:func:`~diffaudit.study.perturbation_metrics.counting`). ``transfer_mean`` is the
    mean of the votes ``transfer.<model>``.
    """
    found = [record for rows in records.values() for record in rows]
    surrogates, heldout = models_of(models, "surrogate"), models_of(models, "heldout")
    shares: dict[str, Any] = {
        "transfer_mean": lambda record: success_on_right(record, heldout),
        "white_box_mean": lambda record: success_on_right(record, surrogates),
        "white_box_all_right": lambda record: success_where_all_right(record, surrogates),
    }
    if any(record.label_kept is not None for record in found):
        shares |= {
            "label_kept": kept,
            "transfer_kept": lambda record: success_if_kept(record, heldout),
            "white_box_kept": lambda record: success_if_kept(record, surrogates),
        }
    for name in heldout:
        shares[f"transfer.{name}"] = lambda record, name=name: success_on_right(record, [name])
    for name in models_of(models, "sibling"):
        shares[f"sibling.{name}"] = lambda record, name=name: success_on_right(record, [name])
    for name in dict.fromkeys(name for record in found for name in record.defended):
        shares[f"defended.{name}"] = lambda record, name=name: defended_success(record, name, heldout)
    measures: Measures[PerturbationRecord] = {**shares, **DISTANCES, "iterations": lambda record: record.iterations}
    counted = {id(record) for record in counting(found, models)}
    votes = {"transfer": tuple(f"transfer.{name}" for name in heldout)}
    votes |= {"white_box": tuple(f"white_box.{name}" for name in surrogates)}
    of_kept = {f"{role}_kept": tuple(f"{vote}, label kept" for vote in names) for role, names in votes.items()}
    of_all = {"white_box_all_right": (*votes["white_box"], *(f"right.{name}" for name in sorted(models)))}
    return tabulated(
        [((record.name, seed, record.image), record) for seed, rows in records.items() for record in rows],
        measures,
        shares=shares,
        partial=[*shares, "psnr"],  # that of an unchanged picture is infinite, and no number
        counts=lambda record: id(record) in counted,
        votes={f"{role}_mean": names for role, names in votes.items()} | of_kept | of_all,
        notes=notes,
    )


def perturbation_reader(runs: Mapping[int, RunFolder]) -> Reader:
    """What reads the images of a row, all seeds together."""
    records = {seed: read_perturbation_records(run.records) for seed, run in runs.items()}
    models: dict[str, str] = {}
    for run in runs.values():
        models |= json.loads(run.metrics.read_text(encoding="utf-8"))["models"]
    return lambda row, notes: perturbation_images(of_row(records, row), models, notes=notes)


def perturbation_seconds(metrics: Mapping[str, Any], row: str) -> float | None:
    """Making the images of a row, without judging them; a row that was not made apart has no time of its own."""
    seconds: float | None = metrics["seconds"].get(row)
    return seconds
