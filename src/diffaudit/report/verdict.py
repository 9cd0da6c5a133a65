"""The verdict of a report: what a run shows, in plain words, and what it does not show."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffaudit.report.wording import NO_BREAK, found, interval_of_share, percent, points, row_metrics

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """One sentence, the figures it is read against, what optimisation adds, and what a reader should beware of."""

    sentence: str
    context: str
    gain: str
    cautions: tuple[str, ...]


def verdict(metrics: Json, manifest: Json) -> Verdict:
    """What the run shows, in plain words, and what it does not show."""
    accuracy, number = metrics["judge_accuracy"], len(metrics["judges"])
    among = manifest.get("num_classes")
    is_attack = manifest.get("is_attack", True)
    access = (
        "From a class index and the model itself, without one private image, the attack rebuilt faces"
        if is_attack
        else "This run is not an attack, for it was given private knowledge: it rebuilt faces"
    )
    judges = "an independent judge recognises" if number == 1 else f"{count(number)} independent judges recognise"
    interval = (
        f"95{NO_BREAK}% interval {interval_of_share(accuracy)}"
        if accuracy["low"] is not None
        else "no interval: one class says nothing about others"
    )
    sentence = (
        f"{access} that {judges} as the right person{f', among {among},' if among else ''} in "
        f"{percent(accuracy['value'])} of {metrics['samples']} samples "
        f"({'mean of the judges; ' if number > 1 else ''}{interval})."
    )
    gain, doubt = _against_start(metrics) if is_attack else ("", False)
    cautions = [gain, *_cautions(metrics)] if doubt else _cautions(metrics)
    return Verdict(sentence, _context(metrics, among), "" if doubt else gain, tuple(cautions))


def _context(metrics: Json, among: int | None) -> str:
    says = {
        "upper": "photographs of the real people reach {}",
        "oracle": "the true private embedding (not an attack) {}",
        "lower": "other people's photographs {}",
        "start": "without optimisation {}",
    }
    parts = []
    for row, words in says.items():
        measures = row_metrics(metrics, row)
        reached = found(measures, "judge_accuracy") if measures else None
        if reached:
            parts.append(words.format(percent(reached["value"])))
    if among:
        parts.append(f"chance is {percent(1 / among)}")
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _cautions(metrics: Json) -> list[str]:
    attack = metrics["judge_accuracy"]
    said = []
    lower, upper = (found(row_metrics(metrics, row) or {}, "judge_accuracy") for row in ("lower", "upper"))
    if lower and overlap(attack, lower):
        said.append(
            "The interval overlaps that of other people's photographs: this run does not show that the model leaks "
            "what its people look like."
        )
    if upper and upper["value"] < 0.8:
        said.append(
            f"The judges recognise real photographs in {percent(upper['value'])} alone, so they are blunt instruments: "
            "read every share against that, not against 100."
        )
    if attack["low"] is None:
        said.append("The run attacked one class, so nothing is said about the others.")
    gap = found(metrics, "overfit_gap")
    if gap and gap["low"] is not None and gap["low"] > 0.1:
        said.append(
            f"The target itself is satisfied more often than the judges, by {points(gap).replace('+', '')}: part of "
            "what the attack found fools the target rather than shows the person."
        )
    return said


def _against_start(metrics: Json) -> tuple[str, bool]:
    """What optimisation adds to row `start`, and whether that is a caution rather than a finding."""
    start = found(row_metrics(metrics, "start") or {}, "judge_accuracy")
    difference = found(metrics, "versus_start")
    if difference is None:
        if start and overlap(metrics["judge_accuracy"], start):
            return (
                "The interval overlaps that of the run without optimisation: this run does not show that the "
                "optimisation adds anything.",
                True,
            )
        return "", False
    size = f"{points(difference)}, p{NO_BREAK}{_p_value(difference['p'])}"
    if difference["low"] is not None and difference["p"] <= 0.05:
        if difference["low"] > 0:
            return f"Against the same sampling without a step, optimisation adds {size.replace('+', '')}.", False
        if difference["high"] < 0:
            return f"Optimisation made the images worse than the same sampling without a step: {size}.", True
    return (
        f"The difference from the run without optimisation, {size}, cannot be told from zero: this run does not show "
        "that the optimisation adds anything.",
        True,
    )


def overlap(one: Json, other: Json) -> bool:
    """Whether the intervals meet; a missing interval is its value alone."""
    low, high = one["low"], one["high"]
    return bool(
        (one["value"] if low is None else low) <= (other["value"] if other["high"] is None else other["high"])
        and (other["value"] if other["low"] is None else other["low"]) <= (one["value"] if high is None else high)
    )


def _p_value(p: float) -> str:
    return f"<{NO_BREAK}0.001" if p < 0.001 else f"={NO_BREAK}{p:.3f}"


def count(number: int) -> str:
    """A small number in words."""
    words = ("no", "one", "two", "three", "four", "five", "six")
    return words[number] if number < len(words) else str(number)
