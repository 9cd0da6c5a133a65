"""Two perturbation runs over the same pictures: which one transfers more, and could that be chance?"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from statsmodels.stats.proportion import proportion_confint

from diffaudit.errors import InvalidSetting
from diffaudit.records import PerturbationRecord
from diffaudit.study.comparison import aligned, mcnemar_p, odds_ratio, paired_difference
from diffaudit.study.perturbation_metrics import success_on_right


@dataclass(frozen=True)
class PairedSuccess:
    """A run's transfer success minus its baseline's, over the same pictures.

    Attributes:
        images: pictures compared: those that a held-out model got right.
        value: mean difference over pictures; ``low`` and ``high`` are its clustered interval (None: one class).
        p: sign-flip permutation test on class means; the p-value to read.
        effect_size: Cohen's d of the class means; None where it is undefined.
        wilcoxon: secondary, on class means.
        won: pairs of a picture and a held-out model that the run alone fools; ``lost``: that the baseline alone fools.
        mcnemar: secondary: exact, takes those pairs as independent, which models that see one picture are not.
        odds_ratio: of those pairs, won over lost; one half is added to both where either is 0.
        odds_low: lower end of its interval (:func:`odds_ratio_interval`); None without a pair that differs.
        odds_high: upper end; None where it is unbounded.
    """

    images: int
    value: float
    low: float | None
    high: float | None
    p: float
    effect_size: float | None
    wilcoxon: float
    won: int
    lost: int
    mcnemar: float
    odds_ratio: float
    odds_low: float | None
    odds_high: float | None

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
        (mine, theirs, one.label)
        for one, other in pairs
        if (mine := success_on_right(one, models)) is not None
        and (theirs := success_on_right(other, models)) is not None
    ]
    if not judged:
        raise InvalidSetting("models", "be right on at least one clean picture", list(models), "Judge by other models.")
    treated, control, labels = zip(*judged, strict=True)
    found = paired_difference(treated, control, labels, resamples=resamples, generator=np.random.default_rng(seed))
    votes = [(one.fooled[name], other.fooled[name]) for one, other in pairs for name in models if one.clean_hits[name]]
    won, lost = (sum(vote == alone for vote in votes) for alone in ((True, False), (False, True)))
    low, high = odds_ratio_interval(won, lost)
    return PairedSuccess(
        images=len(judged),
        value=found.value,
        low=found.low,
        high=found.high,
        p=found.p,
        effect_size=found.effect_size,
        wilcoxon=found.wilcoxon,
        won=won,
        lost=lost,
        mcnemar=mcnemar_p(won, lost),
        odds_ratio=odds_ratio(won, lost),
        odds_low=low,
        odds_high=high,
    )


def odds_ratio_interval(won: int, lost: int, *, level: float = 0.95) -> tuple[float | None, float | None]:
    r"""Return the exact interval of the odds ratio of matched pairs; None for an end that has no number.

    Of the ``won + lost`` pairs that differ, the share won has Clopper and Pearson's interval; each end :math:`p` gives
    the odds :math:`p / (1 - p)`. With no pair that differs there is no interval, with none lost the upper end is
    infinite: None. It holds 1 exactly where the exact McNemar test at the same level does not reject, and takes pairs
    as independent as that test does.

    Paper: Clopper and Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial"
    (1934).

    >>> odds_ratio_interval(0, 0)
    (None, None)
    """
    if won + lost == 0:
        return None, None
    low, high = (float(end) for end in proportion_confint(won, won + lost, alpha=1 - level, method="beta"))
    return low / (1 - low), None if lost == 0 else high / (1 - high)
