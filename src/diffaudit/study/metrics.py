"""``metrics.json``: the records of a run, summarised row by row, with every interval clustered by class."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from diffaudit.errors import InvalidSetting
from diffaudit.records import ROWS, CurvePoint, Record
from diffaudit.study.comparison import aligned, paired_difference
from diffaudit.study.stability import stability
from diffaudit.study.statistics import Rate, rate, value

Json = dict[str, Any]

_MEASURES: dict[str, Callable[[Record], float | None]] = {
    "identity_cosine": lambda record: record.identity_cosine,
    "knn_distance": lambda record: record.knn_distance,
    "diversity": lambda record: record.diversity,
    "embedding_variance": lambda record: record.embedding_variance,
    "perceptual_distance": lambda record: record.perceptual_distance,
}


def inversion_metrics(
    records: Sequence[Record],
    *,
    curves: Sequence[CurvePoint] = (),
    clip: float | None = None,
    seconds: Mapping[str, float] | None = None,
    distribution: Json | None = None,
    travel: Json | None = None,
    notes: Sequence[str] = (),
    seed: int = 0,
    resamples: int = 10_000,
) -> Json:
    """Return the contents of ``metrics.json``: every measure of row ``attack``, the other rows under ``reference``.

    A share of images is ``{"value", "low", "high", "n", "naive_low", "naive_high"}``, a mean ``{"value", "low",
    "high"}``; ends are null where no interval can be given (one class). ``judge_accuracy`` is the mean over images of
    the share of judges whose first choice is the class sought (:func:`vote_rate`). ``overfit_gap`` is target minus
    judge accuracy over the same images. ``successes`` are the measures of the images that *every* judge recognises.
    ``versus_start`` is the judge accuracy minus that of row ``start``, paired by class and sample. ``stability`` is
    that of :func:`~diffaudit.study.stability.stability`, ``distribution`` that of
    :func:`~diffaudit.study.distribution.distribution_metrics`. Beside the contract there are ``judges_top5``,
    ``successes``, ``versus_start``, ``travel`` and ``notes``, which say what was left out and why.

    A measure that no image has is null (in ``reference``, where rows differ in what applies, it is left out), and so
    is one that some image has as NaN or infinity: a mean over the rest would be another measure. Every interval draws
    from ``seed`` afresh, so that no value depends on which others are asked for.

    Args:
        records: of one run, in any order.
        curves: the training steps, in order; none for a run without training.
        clip: gradient norm at which the optimiser clipped; None where it did not.
        seconds: durations by name, handed through.
        distribution: the rows as sets, which no record holds, handed through; None where they were not embedded.
        travel: how far embeddings and centres moved (:func:`~diffaudit.study.travel.travel`), handed through; None for
            a run without training.
        notes: what the caller wants to have said.
        seed: of the bootstrap and the permutation test.
        resamples: draws of either.

    Raises:
        InvalidSetting: no record is of row ``attack``, or a row names the same (class, sample) twice.
    """
    by_row: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_row[record.row].append(record)
    if not by_row["attack"]:
        raise InvalidSetting("records", "hold at least one image of row 'attack'", sorted(by_row), "Finish the run.")
    for row, found in by_row.items():
        _require_once(row, found)
    said = list(notes)
    attack = _Summary(by_row["attack"], "", said, seed, resamples)
    start = by_row.get("start", [])
    return {
        "audit": "inversion",
        **attack.everything(),
        "reference": {
            row: _present(_Summary(by_row[row], f"{row}: ", said, seed, resamples).everything())
            for row in ROWS
            if row != "attack" and by_row.get(row)
        },
        "successes": _successes(by_row["attack"], said, seed, resamples),
        "versus_start": versus_start(by_row["attack"], start, notes=said, seed=seed, resamples=resamples),
        "distribution": distribution,
        "stability": stability(curves, clip=clip),
        "travel": travel,
        "seconds": {name: _finite(duration) for name, duration in (seconds or {}).items()},
        "notes": said,
    }


def vote_rate(
    votes: Sequence[float], clusters: Sequence[int], *, resamples: int = 10_000, generator: np.random.Generator
) -> Rate:
    """Return the mean of votes in [0, 1] (each image's share of judges) as a rate over images.

    Shapes ``(N,), (N,)``. The interval is the bootstrap's of the mean vote, clustered by class. The naive interval is
    Wilson's with the **images** as trials and the votes' sum as successes: judges look at the same image, so counting
    images times judges would make the naive interval naiver still. With one judge, and wherever judges agree on every
    image, this is :func:`~diffaudit.study.statistics.rate`.

    >>> vote_rate([1.0, 0.5, 0.5, 0.0], [0, 0, 1, 1], resamples=99, generator=np.random.default_rng(0)).value
    0.5
    """
    if all(vote in (0.0, 1.0) for vote in votes):
        return rate(votes, clusters, resamples=resamples, generator=generator)
    mean = value(votes, clusters, resamples=resamples, generator=generator)
    low, high = proportion_confint(sum(votes), len(votes), alpha=0.05, method="wilson")
    return Rate(mean.value, mean.low, mean.high, len(votes), float(low), float(high))


def versus_start(
    attack: Sequence[Record], start: Sequence[Record], *, notes: list[str], seed: int = 0, resamples: int = 10_000
) -> Json | None:
    """Return the judge accuracy of ``attack`` minus ``start``'s over the same (class, sample); None without pairs.

    Difference, interval, p-value and effect size rest on class means alone, so they do not change if the samples of a
    class are paired in another order. Images without a partner are left out and noted.
    """
    partners = {(record.label, record.sample) for record in attack} & {(one.label, one.sample) for one in start}
    if not partners:
        return None
    treated, control = ([one for one in side if (one.label, one.sample) in partners] for side in (attack, start))
    if len(partners) < max(len(attack), len(start)):
        notes.append(f"versus_start: over the {len(partners)} images that both rows hold.")
    order = aligned([(one.label, one.sample) for one in treated], [(one.label, one.sample) for one in control])
    found = paired_difference(
        [one.judge_accuracy for one in treated],
        np.array([one.judge_accuracy for one in control])[order],
        [one.label for one in treated],
        resamples=resamples,
        generator=np.random.default_rng(seed),
    ).to_json()
    return {
        "measure": "judge_accuracy",
        **{key: found[key] for key in ("value", "low", "high", "p", "effect_size", "wilcoxon")},
        "n": len(partners),
    }


class _Summary:
    """The measures of some images of one row, each with its interval."""

    def __init__(self, records: Sequence[Record], prefix: str, notes: list[str], seed: int, resamples: int) -> None:
        self.records = records
        self.clusters = [record.label for record in records]
        self.prefix = prefix
        self.notes = notes
        self.seed = seed
        self.resamples = resamples

    def everything(self) -> Json:
        """Accuracies and measures."""
        judges = dict.fromkeys(name for record in self.records for name in record.judges)
        return {
            "classes": len(set(self.clusters)),
            "samples": len(self.records),
            "target_accuracy": self._rate(record.target_hit for record in self.records),
            "judge_accuracy": self._rate(record.judge_accuracy for record in self.records),
            "judge_accuracy_top5": self._rate(record.judge_accuracy_top5 for record in self.records),
            "judges": {name: self._rate(record.judges[name].hit for record in self.records) for name in judges},
            "judges_top5": {name: self._rate(record.judges[name].top5 for record in self.records) for name in judges},
            "overfit_gap": self._mean(
                "overfit_gap", [record.target_hit - record.judge_accuracy for record in self.records]
            ),
            **self.measures(),
        }

    def measures(self) -> Json:
        """What is measured on images rather than decided by judges."""
        attributes = dict.fromkeys(name for record in self.records for name in record.attribute_error or {})
        return {
            **{
                name: self._mean(name, [measure(record) for record in self.records])
                for name, measure in _MEASURES.items()
            },
            "attribute_error": {
                name: self._mean(
                    f"attribute_error.{name}", [(record.attribute_error or {}).get(name) for record in self.records]
                )
                for name in attributes
            },
            "factor_error": self._mean("factor_error", [record.factor_error for record in self.records]),
        }

    def _rate(self, votes: Iterable[float]) -> Json:
        generator = np.random.default_rng(self.seed)
        return vote_rate(
            [float(vote) for vote in votes], self.clusters, resamples=self.resamples, generator=generator
        ).to_json()

    def _mean(self, name: str, values: Sequence[float | None]) -> Json | None:
        found = [(number, label) for number, label in zip(values, self.clusters, strict=True) if number is not None]
        if not found:
            return None
        bad = sum(not math.isfinite(number) for number, _ in found)
        if bad:
            self.notes.append(f"{self.prefix}{name}: not finite for {bad} of {len(found)} images, so it has no mean.")
            return None
        if len(found) < len(values):
            self.notes.append(f"{self.prefix}{name}: measured on {len(found)} of {len(values)} images.")
        numbers, labels = zip(*found, strict=True)
        generator = np.random.default_rng(self.seed)
        return value(numbers, labels, resamples=self.resamples, generator=generator).to_json()


def _successes(attack: Sequence[Record], notes: list[str], seed: int, resamples: int) -> Json:
    hits = [record for record in attack if all(vote.hit for vote in record.judges.values())]
    if not hits:
        return {"classes": 0, "samples": 0}
    summary = _Summary(hits, "successes: ", notes, seed, resamples)
    measures = summary.measures() | {"diversity": None, "embedding_variance": None}  # a record holds its class's
    return {"classes": len(set(summary.clusters)), "samples": len(hits), **_present(measures)}


def _present(measures: Json) -> Json:
    return {name: measure for name, measure in measures.items() if measure not in (None, {})}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _require_once(row: str, records: Sequence[Record]) -> None:
    seen: set[tuple[int, int]] = set()
    for record in records:
        key = (record.label, record.sample)
        if key in seen:
            raise InvalidSetting("records", f"hold each (class, sample) of row '{row}' once", f"{key} twice")
        seen.add(key)
