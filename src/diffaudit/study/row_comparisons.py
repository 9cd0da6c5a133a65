"""Rows of an ablation compared pair by pair, and the p-values of a whole family corrected together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diffaudit.study.comparison import EXACT_CLASSES, holm, paired_difference
from diffaudit.study.row_images import RowImages, paired, voted_pairs
from diffaudit.study.statistics import relative_change, share_of_gap

Json = dict[str, Any]

_NO_RATIO = ("overfit_gap", "identity_cosine", "psnr", "reconstruction_psnr")
"""Means of which a relative change says nothing: those with a sign, and decibels."""


class Comparisons:
    """Makes comparisons and, when all are made, corrects the p-values of each family.

    A family is what is compared for one purpose: the rows with their baselines, the rows with the start, the contrasts;
    of each, one measure's comparisons (``correction`` `column`: every measure asks its own question) or all (`table`).
    ``clusters`` is what the rows' clusters are called.
    """

    def __init__(self, *, resamples: int, correction: str, clusters: str) -> None:
        self.resamples = resamples
        self.correction = correction
        self.clusters = clusters
        self._families: dict[str, list[Json]] = {}
        self._least = 0.0  # the smallest p-value that a comparison can have

    def compare(
        self,
        purpose: str,
        row: RowImages,
        against: RowImages,
        references: Mapping[str, RowImages] | None = None,
    ) -> dict[str, Json]:
        """Every measure that both rows have: row minus ``against`` over the seeds of both and the images that count.

        A measure that is the mean of other votes in the one than in the other is left out. With ``references`` `start`
        and `oracle`, the difference in the share of their gap closed is one of them.
        """
        one, other = paired(row, against)
        found: dict[str, Json] = {}
        for name in (name for name in one.columns if name in other.columns):
            counted = np.isfinite(one.columns[name]) & np.isfinite(other.columns[name])
            if counted.any() and one.votes.get(name) == other.votes.get(name):
                found[name] = self._difference(name, one, other, counted)
        if "judge_accuracy" in found and references is not None and len(references) == 2:
            gap = self._gap_difference(row, against, references, found["judge_accuracy"])
            found |= {} if gap is None else {"gap_closed": gap}
        for name, difference in found.items():
            family = f"{purpose}, {name}" if self.correction == "column" else purpose
            self._families.setdefault(family, []).append(difference)
        return found

    def correct(self, notes: list[str]) -> None:
        """Fills in ``p_corrected``; a family too large for its clusters or draws to reach 0.01 is noted."""
        for members in self._families.values():
            adjusted = holm({str(number): member["p"] for number, member in enumerate(members)})
            for number, member in enumerate(members):
                member["p_corrected"] = adjusted[str(number)]
        largest = max((len(members) for members in self._families.values()), default=0)
        if largest * self._least > 0.01:
            notes.append(
                f"{largest} comparisons corrected together cannot come below a corrected p of "
                f"{largest * self._least:.2g}, whatever is found: attack more {self.clusters} or "
                "raise `resamples`."
            )

    def _difference(self, name: str, one: RowImages, other: RowImages, counted: NDArray[np.bool_]) -> Json:
        values, baseline, draws = one.columns[name][counted], other.columns[name][counted], self.resamples
        clusters = one.clusters[counted]
        number = len(np.unique(clusters))
        self._least = max(self._least, 2.0 ** (1 - number) if number <= EXACT_CLASSES else 2 / (draws + 1))
        found = paired_difference(
            values,
            baseline,
            clusters,
            one.seeds[counted],
            pairs=voted_pairs(one, other, name),
            resamples=draws,
            generator=np.random.default_rng(0),
        )
        relative = None
        if name not in one.shares and name not in _NO_RATIO:
            generator = np.random.default_rng(0)
            relative = relative_change(values, baseline, clusters, resamples=draws, generator=generator)
        pairs = found.pairs
        return {
            "difference": found.value,
            "low": found.low,
            "high": found.high,
            "p": found.p,
            "p_corrected": None,
            "by_seed": list(found.by_seed.values()),
            "same_sign": found.same_sign,
            "effect_size": found.effect_size,
            "odds_ratio": pairs and pairs.odds_ratio,
            "odds_low": pairs and pairs.odds_low,
            "odds_high": pairs and pairs.odds_high,
            "relative": None if relative is None else relative.to_json(),
            "secondary": {"mcnemar": pairs and pairs.mcnemar, "wilcoxon": found.wilcoxon},
        }

    def _gap_difference(
        self, row: RowImages, against: RowImages, references: Mapping[str, RowImages], judged: Json
    ) -> Json | None:
        """The difference in the share of the gap closed: judge accuracy's over the gap, so its tests are the same."""
        parts = paired(row, against, references["start"], references["oracle"])
        reached, compared, begun, top = (part.columns["judge_accuracy"] for part in parts)
        gap = float(top.mean() - begun.mean()) if parts[0].keys else 0.0
        if gap <= 0:
            return None
        difference = share_of_gap(
            reached - compared + begun,
            begun,
            top,
            parts[0].clusters,
            resamples=self.resamples,
            generator=np.random.default_rng(0),
        )
        return judged | {
            "difference": difference.value,
            "low": difference.low,
            "high": difference.high,
            "by_seed": [by_seed / gap for by_seed in judged["by_seed"]],
        }
