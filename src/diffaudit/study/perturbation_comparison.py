"""Two perturbation runs over the same pictures: which one transfers more, and could that be chance?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from diffaudit.errors import InvalidSetting
from diffaudit.records import PerturbationRecord
from diffaudit.study.comparison import aligned, paired_difference
from diffaudit.study.matched_pairs import MatchedPairs
from diffaudit.study.perturbation_metrics import success_on_right


@dataclass(frozen=True)
class PairedSuccess:
    """A run's transfer success minus its baseline's, over the same pictures.

    Attributes:
        images: pictures compared: those that a held-out model got right.
        value: mean difference over pictures; ``low`` and ``high`` are its interval, whole pictures resampled (None: one
            picture).
        p: sign-flip permutation test on the pictures; the p-value to read.
        effect_size: Cohen's d of the pictures; None where it is undefined.
        wilcoxon: secondary, on the pictures.
        pairs: secondary: pairs of a picture and a held-out model that the run alone fools, or the baseline alone. Its
            test takes them as independent, which models that see one picture are not.
    """

    images: int
    value: float
    low: float | None
    high: float | None
    p: float
    effect_size: float | None
    wilcoxon: float
    pairs: MatchedPairs

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain Python values."""
        return asdict(self)


def paired_success(
    records: Sequence[PerturbationRecord],
    baseline: Sequence[PerturbationRecord],
    models: Collection[str],
    *,
    seed: int = 0,
    resamples: int = 10_000,
) -> PairedSuccess:
    """Return the difference in transfer success of two rows over the same pictures, with its tests.

    Per picture, each row's success is the share of the held-out ``models`` fooled among those right on the clean
    picture (:func:`~diffaudit.study.perturbation_metrics.success_on_right`); pictures that none got right are left out.
    Pictures are paired by label and name. Rows may be of two runs, or two rows of one.

    Raises:
        InvalidSetting: for no model, for clean pictures that the same model judged differently (other pictures, or
            other models of the same name), and where no model was right on any.
        ValueError: for pictures that one of the two lacks or holds twice.
    """
    if not models:
        raise InvalidSetting("models", "name at least one held-out model", list(models))
    order = aligned([(one.label, one.name) for one in records], [(one.label, one.name) for one in baseline])
    pairs = [(one, baseline[row]) for one, row in zip(records, order, strict=True)]
    for one, other in pairs:
        if any(one.clean_hits[name] != other.clean_hits[name] for name in models):
            rule = "hold the same clean pictures, judged by the same models"
            raise InvalidSetting(
                "baseline", rule, f"another vote on {one.name!r}", "Compare runs of one judging section."
            )
    judged = [
        (mine, theirs, one.image)
        for one, other in pairs
        if (mine := success_on_right(one, models)) is not None
        and (theirs := success_on_right(other, models)) is not None
    ]
    if not judged:
        raise InvalidSetting("models", "be right on at least one clean picture", list(models), "Judge by other models.")
    treated, control, images = zip(*judged, strict=True)
    found = paired_difference(treated, control, images, resamples=resamples, generator=np.random.default_rng(seed))
    votes = [(one.fooled[name], other.fooled[name]) for one, other in pairs for name in models if one.clean_hits[name]]
    won, lost = (sum(vote == alone for vote in votes) for alone in ((True, False), (False, True)))
    return PairedSuccess(
        images=len(judged),
        value=found.value,
        low=found.low,
        high=found.high,
        p=found.p,
        effect_size=found.effect_size,
        wilcoxon=found.wilcoxon,
        pairs=MatchedPairs.of(won, lost),
    )
