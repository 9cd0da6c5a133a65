"""``metrics.json`` of a perturbation: the attack and every reference, summarised, every interval over pictures."""

import math
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from diffaudit.errors import InvalidSetting
from diffaudit.records import PerturbationRecord
from diffaudit.study.metrics import vote_rate
from diffaudit.study.statistics import rate, value

Json = dict[str, Any]

DISTANCES: dict[str, Callable[[PerturbationRecord], float | None]] = {
    "perceptual_distance": lambda record: record.perceptual_distance,
    "ssim": lambda record: record.ssim,
    "psnr": lambda record: record.psnr,
    "l2": lambda record: record.l2,
    "linf": lambda record: record.linf,
    "colour_difference": lambda record: record.colour_difference,
    "reconstruction_psnr": lambda record: record.reconstruction_psnr,
}
"""Measures of how far an image is from the clean picture."""


def perturbation_metrics(
    records: Sequence[PerturbationRecord],
    models: Mapping[str, str],
    *,
    seconds: Mapping[str, float] | None = None,
    sets: Mapping[str, Json] | None = None,
    residual_added: bool = False,
    own_ruler: bool = False,
    notes: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 10_000,
) -> Json:
    """Return the contents of ``metrics.json``: every measure of row ``attack``, the other rows under ``references``.

    A share of images is the JSON of :func:`~diffaudit.study.statistics.rate`, a mean that of
    :func:`~diffaudit.study.statistics.value`; a measure that no image has is null. Success is counted **only on images
    that the model first got right**, so ``n`` differs from model to model; ``clean_accuracy`` stands beside it.

    - ``white_box_success``: by surrogate. ``transfer_success``: by held-out model. ``sibling_success``: by sibling, a
      relative of a surrogate, which enters no mean.
    - ``transfer_mean``: per image the share of the held-out models fooled, among those that were right on the clean
      picture (:func:`success_on_right`); images that none got right are left out. ``white_box_mean`` is that of the
      surrogates.
    - ``white_box_all_right``: ``white_box_mean`` over the pictures that **every** model of the run first got right.
    - ``defended_success``: by defence, the same with each held-out model behind the defence, so that it is read against
      ``transfer_mean``; ``defended_white_box`` is that of the surrogates.
    - ``label_kept``: the share of the images that still deserve their label, where a rule can tell.
      ``transfer_kept`` and ``white_box_kept`` are the two means with every other image counted as a failure
      (:func:`success_if_kept`): a picture that was recoloured until its label is another fools nobody.
    - Distances are means over the images that count for transfer (:func:`counting`), failures included: a price beside
      what it bought.
    - ``kernel_distance`` and ``frechet_distance``: of the row's images as a set, as ``sets`` has them.
    - ``seconds_per_image``: one measurement over the whole row, so it has no interval.

    Intervals resample pictures (``clusters`` says so). The labels are all the labels there are, fixed and not drawn;
    every picture is of another person or scene, and what is audited is a population of pictures. Row `rebuilt`, under
    ``references``, is what DDIM inversion and decoding alone give: the part of a success that no perturbation made.
    Beside the contract stand ``classes``, ``clusters``, ``targeted``, ``sibling_success``, ``white_box_mean``,
    ``white_box_all_right``, ``defended_white_box``, ``label_kept``, ``transfer_kept``, ``white_box_kept``, ``l2``,
    ``colour_difference``, the two distances of sets, ``residual_added``, ``own_ruler`` and ``notes``.

    Args:
        records: of one run, in any order.
        models: role by name: ``surrogate``, ``heldout`` or ``sibling``.
        seconds: time that making each row took, all images together.
        sets: by row, what :func:`~diffaudit.study.paired_sets.set_distances` found; None where nothing was embedded.
        residual_added: whether the attack's images have back what inversion and autoencoder lose; it is handed through.
        own_ruler: whether the perceptual distance is that by which the attack chose its images; it is handed through.
        notes: what the caller wants to have said.
        seed: of the bootstrap.
        resamples: its draws.

    Raises:
        InvalidSetting: no record is of row ``attack``, a row holds an image twice, or a record lacks a model.
    """
    by_row: dict[str, list[PerturbationRecord]] = defaultdict(list)
    for record in records:
        by_row[record.row].append(record)
    attack = by_row.pop("attack", [])
    if not attack:
        raise InvalidSetting("records", "hold at least one image of row 'attack'", sorted(by_row), "Finish the run.")
    said = list(notes)
    for row, found in (("attack", attack), *by_row.items()):
        _require_sound(row, found, models)
        if {record.image for record in found} != {record.image for record in attack}:
            said.append(f"{row}: over other images than the attack ({len(found)} against {len(attack)}).")
    times, apart = seconds or {}, sets or {}
    return {
        "audit": "perturbation",
        "classes": len({record.label for record in attack}),
        "clusters": "images",
        "targeted": any(record.goal is not None for record in attack),
        "models": dict(models),
        "residual_added": residual_added,
        "own_ruler": own_ruler,
        **_Summary(attack, models, "", said, seed, resamples).everything(times.get("attack"), apart.get("attack")),
        "references": {
            row: _Summary(found, models, f"{row}: ", said, seed, resamples).everything(times.get(row), apart.get(row))
            for row, found in by_row.items()
        },
        "notes": said,
    }


def success_on_right(record: PerturbationRecord, models: Collection[str]) -> float | None:
    """Return the share of ``models`` fooled, among those right on the clean picture; None where none was.

    In [0, 1]. A model that was wrong before counts neither for the attack nor against it.
    """
    right = [name for name in models if record.clean_hits[name]]
    return sum(record.fooled[name] for name in right) / len(right) if right else None


def success_where_all_right(record: PerturbationRecord, models: Collection[str]) -> float | None:
    """Return the share of ``models`` fooled; None unless every model of the run was right on the clean picture."""
    return success_on_right(record, models) if all(record.clean_hits.values()) else None


def kept(record: PerturbationRecord) -> float | None:
    """Return 1 where the picture still deserves its label, 0 where it does not, None where no rule says."""
    return None if record.label_kept is None else float(record.label_kept)


def success_if_kept(record: PerturbationRecord, models: Collection[str]) -> float | None:
    """Return :func:`success_on_right`, or 0 where the picture no longer deserves its label; None where no rule says."""
    success = None if record.label_kept is None else success_on_right(record, models)
    return 0.0 if success is not None and not record.label_kept else success


def defended_success(record: PerturbationRecord, defence: str, models: Collection[str]) -> float | None:
    """Return the mean over ``models`` of the share of repeats fooled behind ``defence``; None where none was right.

    In [0, 1]. Models that were never right on the defended clean picture are left out.
    """
    shares = [share for name in models if (share := record.defended[defence][name]) is not None]
    return sum(shares) / len(shares) if shares else None


def models_of(models: Mapping[str, str], role: str) -> list[str]:
    """Return the names of the models in a role, in order.

    >>> models_of({"a": "surrogate", "b": "heldout", "c": "surrogate"}, "surrogate")
    ['a', 'c']
    """
    return [name for name, found in models.items() if found == role]


def counting(records: Sequence[PerturbationRecord], models: Mapping[str, str]) -> list[PerturbationRecord]:
    """Return the records that count for transfer: at least one held-out model was right. All, where none ever was.

    Success is counted on these alone, so distances are measured on them too. A picture that every model had wrong
    before may be left as it is, at no distance, and would make an attack look nearer than its successes are.
    """
    heldout = models_of(models, "heldout")
    return [record for record in records if any(record.clean_hits[name] for name in heldout)] or list(records)


class _Summary:
    """The measures of one row, each with its interval."""

    def __init__(
        self,
        records: Sequence[PerturbationRecord],
        models: Mapping[str, str],
        prefix: str,
        notes: list[str],
        seed: int,
        resamples: int,
    ) -> None:
        self.records = records
        self.models = models
        self.prefix = prefix
        self.notes = notes
        self.seed = seed
        self.resamples = resamples

    def everything(self, seconds: float | None, sets: Json | None) -> Json:
        """Successes, distances and time."""
        surrogates, heldout = models_of(self.models, "surrogate"), models_of(self.models, "heldout")
        defences = dict.fromkeys(name for record in self.records for name in record.defended)
        return {
            "images": len(self.records),
            "clean_accuracy": {name: self._clean(name) for name in self.models},
            "white_box_success": {name: self._success(name) for name in surrogates},
            "transfer_success": {name: self._success(name) for name in heldout},
            "sibling_success": {name: self._success(name) for name in models_of(self.models, "sibling")},
            "transfer_mean": self._shares([success_on_right(record, heldout) for record in self.records]),
            "white_box_mean": self._shares([success_on_right(record, surrogates) for record in self.records]),
            "white_box_all_right": self._shares(
                [success_where_all_right(record, surrogates) for record in self.records]
            ),
            "label_kept": self._shares([kept(record) for record in self.records]),
            "transfer_kept": self._shares([success_if_kept(record, heldout) for record in self.records]),
            "white_box_kept": self._shares([success_if_kept(record, surrogates) for record in self.records]),
            "defended_success": {name: self._defended(name, heldout) for name in defences},
            "defended_white_box": {name: self._defended(name, surrogates) for name in defences},
            **{name: self._mean(name, measure) for name, measure in DISTANCES.items()},
            **(sets or {"kernel_distance": None, "frechet_distance": None}),
            "seconds_per_image": None
            if seconds is None
            else {"value": seconds / len(self.records), "low": None, "high": None},
        }

    def _clean(self, name: str) -> Json:
        hits = [record.clean_hits[name] for record in self.records]
        return rate(hits, self._pictures(), resamples=self.resamples, generator=self._generator()).to_json()

    def _success(self, name: str) -> Json | None:
        found = self._shares([success_on_right(record, [name]) for record in self.records])
        if found is None:
            self.notes.append(f"{self.prefix}{name}: right on no clean picture, so there is no success to count.")
        return found

    def _defended(self, defence: str, models: Collection[str]) -> Json | None:
        return self._shares([defended_success(record, defence, models) for record in self.records])

    def _shares(self, shares: Sequence[float | None]) -> Json | None:
        counted = [(share, image) for share, image in zip(shares, self._pictures(), strict=True) if share is not None]
        if not counted:
            return None
        votes, images = zip(*counted, strict=True)
        return vote_rate(votes, images, resamples=self.resamples, generator=self._generator()).to_json()

    def _mean(self, name: str, measure: Callable[[PerturbationRecord], float | None]) -> Json | None:
        counted = counting(self.records, self.models)
        found = [(number, record.image) for record in counted if (number := measure(record)) is not None]
        if not found:
            return None
        bad = sum(not math.isfinite(number) for number, _ in found)
        if bad:
            self.notes.append(f"{self.prefix}{name}: not finite for {bad} of {len(found)} images, so it has no mean.")
            return None
        if len(found) < len(counted):
            self.notes.append(f"{self.prefix}{name}: measured on {len(found)} of {len(counted)} images.")
        numbers, images = zip(*found, strict=True)
        return value(numbers, images, resamples=self.resamples, generator=self._generator()).to_json()

    def _pictures(self) -> list[int]:
        return [record.image for record in self.records]

    def _generator(self) -> np.random.Generator:
        """Each interval draws afresh, so that no value depends on which others are asked for."""
        return np.random.default_rng(self.seed)


def _require_sound(row: str, records: Sequence[PerturbationRecord], models: Mapping[str, str]) -> None:
    seen: set[int] = set()
    for record in records:
        if record.image in seen:
            raise InvalidSetting("records", f"hold each image of row '{row}' once", f"{record.image} twice")
        seen.add(record.image)
        if set(record.clean_hits) != set(models):
            rule = f"name the models of the run, {', '.join(models)}"
            raise InvalidSetting("records", rule, sorted(record.clean_hits), "Judge the row again.")
