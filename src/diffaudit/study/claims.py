"""What is said about the schemes, as data, beside what was measured: seen, not seen, opposite, or undecided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any, Literal

Json = dict[str, Any]
Verdict = Literal["seen", "not seen", "opposite", "undecided"]


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One claim in circulation.

    Attributes:
        row: whose claim it is.
        says: the claim as it circulates.
        metric: the measure it is set beside.
        of: ``difference`` from the baseline, ``relative`` change from it, the row's own ``level``, or ``variation``:
            the relative change of the coefficient of variation of the terms that both rows have.
        low: lower end of the claimed range, a share (0.03 is 3 points or 3 %).
        high: upper end.
        reading: what had to be decided in order to measure it.
    """

    row: str
    says: str
    metric: str
    of: Literal["difference", "relative", "level", "variation"]
    low: float
    high: float
    reading: str = ""


CLAIMS = (
    Claim(
        row="A",
        says="quality rises by 0.2 to 0.3",
        metric="identity_cosine",
        of="difference",
        low=0.2,
        high=0.3,
        reading="the claim names no measure; read as identity cosine under the judges' encoder",
    ),
    Claim(
        row="A", says="success falls by 1 to 2 points", metric="judge_accuracy", of="difference", low=-0.02, high=-0.01
    ),
    Claim(
        row="B", says="success rises by 3 to 5 points", metric="judge_accuracy", of="difference", low=0.03, high=0.05
    ),
    Claim(
        row="B",
        says="training and validation success agree",
        metric="overfit_gap",
        of="level",
        low=-0.05,
        high=0.05,
        reading="target minus judge accuracy within 5 points",
    ),
    Claim(row="C", says="diversity rises by 15 to 50 %", metric="diversity", of="relative", low=0.15, high=0.5),
    Claim(row="A+B+C", says="success rises by 6 points", metric="judge_accuracy", of="difference", low=0.06, high=0.06),
    Claim(
        row="D",
        says="success rises by 4 to 8 points without tuning by hand",
        metric="judge_accuracy",
        of="difference",
        low=0.04,
        high=0.08,
        reading="the effort of tuning is not measured",
    ),
    Claim(
        row="D",
        says="training is 30 % steadier",
        metric="variation",
        of="variation",
        low=-0.3,
        high=-0.3,
        reading="change of the coefficient of variation, the median over the terms that both have (the classifier's in "
        "another form); the ends are the seeds' extremes, no interval",
    ),
)
"""Every claim that the ablation is set beside; success is read as judge accuracy."""


def verdict(
    low: float | None,
    high: float | None,
    claimed: tuple[float, float],
    *,
    same_sign: bool = True,
    p_corrected: float | None = None,
) -> tuple[Verdict, str]:
    """Return what an interval says of a claimed range, and why in words.

    A claim of an effect is *seen* where the interval lies on the claimed side of 0 and reaches the claimed range, with
    the same sign in every seed; *not seen* where it does not reach the range; *opposite* where it lies on the other
    side of 0; *undecided* where it holds both 0 and a part of the range. An effect that was tested counts, on either
    side of 0, with a corrected p-value below 0.05. A claim whose range holds 0 says that there is no effect: it is
    *seen* where the interval lies inside the range and *not seen* where it lies outside.

    >>> verdict(0.01, 0.04, (0.03, 0.05))
    ('seen', '')
    >>> verdict(-0.01, 0.04, (0.03, 0.05))
    ('undecided', 'the interval holds both no effect and the claimed one')
    """
    if low is None or high is None:
        return "undecided", "there is no interval"
    begin, end = claimed
    if begin <= 0 <= end:
        if begin <= low and high <= end:
            return "seen", ""
        outside = high < begin or end < low
        return ("not seen", "outside the claimed range") if outside else ("undecided", "partly inside the range")
    if end < 0:
        low, high, begin, end = -high, -low, -end, -begin
    chance = p_corrected is not None and p_corrected >= 0.05
    if high < 0 and not chance:
        return "opposite", "the effect has the other sign"
    if high < begin:
        smaller = low > 0 and same_sign and not chance
        return "not seen", "an effect, smaller than claimed" if smaller else "no effect as large as claimed"
    if low <= 0:
        return "undecided", "the interval holds both no effect and the claimed one"
    if not same_sign:
        return "undecided", "the seeds differ in sign"
    if chance:
        return "undecided", "no more than chance after correction"
    return "seen", "larger than claimed" if low > end else ""


def judged_claims(rows: Sequence[Json], claims: Sequence[Claim] = CLAIMS) -> list[Json]:
    """Return every claim in each mode that measured its row, with the measure and the verdict.

    ``rows`` are those of ``ablation.json``. A claim whose row nobody ran is listed with ``verdict`` None.
    """
    found = []
    for claim in claims:
        measured = [row for row in rows if row["name"] == claim.row and _measure(claim, row, rows) is not None]
        if not measured:
            found.append(asdict(claim) | {"mode": None, "measured": None, "verdict": None, "why": "not measured"})
        for row in measured:
            measure = _measure(claim, row, rows) or {}
            word, why = verdict(
                measure["low"],
                measure["high"],
                (claim.low, claim.high),
                same_sign=measure["same_sign"],
                p_corrected=measure["p_corrected"],
            )
            found.append(asdict(claim) | {"mode": row["mode"], "measured": measure, "verdict": word, "why": why})
    return found


def _measure(claim: Claim, row: Json, rows: Sequence[Json]) -> Json | None:
    difference = row["versus_baseline"].get(claim.metric)
    match claim.of:
        case "difference" if difference:
            return _ends(difference, "difference", tested=difference)
        case "relative" if difference and difference["relative"]:
            return _ends(difference["relative"], "value", tested=difference)
        case "level" if row["metrics"].get(claim.metric):
            return _ends(row["metrics"][claim.metric], "value")
        case "variation":
            return _steadier(row, rows)
        case _:
            return None


def _ends(measure: Mapping[str, Any], value: str, *, tested: Mapping[str, Any] | None = None) -> Json:
    """A measure with its interval, and what was found when its difference from the baseline was tested."""
    found = {"value": measure[value], "low": measure["low"], "high": measure["high"]}
    if tested is None:
        return found | {"same_sign": True, "p_corrected": None}
    return found | {"same_sign": tested["same_sign"], "p_corrected": tested["p_corrected"]}


def _steadier(row: Json, rows: Sequence[Json]) -> Json | None:
    """How a row's variation differs from its baseline's: mean over the seeds and, from two on, least and largest."""
    baseline = next((other for other in rows if other["baseline"] and other["mode"] == row["mode"]), None)
    if baseline is None or not row["stability"] or not baseline["stability"]:
        return None
    before, after = (dict(zip(one["seeds"], one["stability"]["by_run"], strict=True)) for one in (baseline, row))
    changes = [
        change for seed in after if seed in before and (change := _change(before[seed], after[seed])) is not None
    ]
    if not changes:
        return None
    same = len({change > 0 for change in changes}) == 1
    several = len(changes) > 1
    ends = {"low": min(changes) if several else None, "high": max(changes) if several else None}
    return ends | {"value": sum(changes) / len(changes)} | {"same_sign": same, "p_corrected": None}


def _change(before: Mapping[str, float | None], after: Mapping[str, float | None]) -> float | None:
    """The median relative change over the terms that both have; None where they share none."""
    pairs = [(before.get(name), new) for name, new in after.items()]
    changes = [new / old - 1 for old, new in pairs if old and new is not None]
    return median(changes) if changes else None
