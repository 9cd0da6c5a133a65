"""The words of a report: names and meanings of rows and measures, and how numbers are written."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Json = Mapping[str, Any]

NO_BREAK = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
DASH = "\N{EN DASH}"


@dataclass(frozen=True)
class Row:
    """A row of the tables: its key in the records, its title, what it is, and what it must not be taken for."""

    key: str
    title: str
    note: str
    warning: str = ""


@dataclass(frozen=True)
class Measure:
    """A column of the tables, and its line of the glossary.

    ``direction`` is ``up`` (more means that more leaks), ``down`` (less does), ``zero`` (0 is sound), ``nearer`` (less
    is nearer to the source picture) or ``varied``; the last two are neither good nor bad. Of a perturbation: ``fools``
    (more models are fooled), ``known`` (more clean pictures were right), ``visible`` (less is less visible), ``alike``
    (more is less visible) or ``cost``. Of a set: ``apart`` (0 is alike), ``real`` (more images lie among photographs),
    ``crowded`` (1 is alike) or ``reached`` (more photographs have their like).
    """

    key: str
    title: str
    direction: Literal[
        "up", "down", "nearer", "zero", "varied",
        "fools", "known", "honest", "visible", "alike", "cost",
        "apart", "real", "crowded", "reached",
    ]  # fmt: skip
    share: bool
    meaning: str
    digits: int = 3


ROWS = (
    Row("upper", "Photographs of the real people", "held out; what a perfect reconstruction would reach"),
    Row("oracle", "True private embedding", "what this prior draws under it: no hard bound", "not an attack"),
    Row("attack", "Attack", "all images"),
    Row(
        "attack-finished",
        "Attack, optimised pixels",
        "the same images after gradient steps on their pixels",
        "not a reconstruction: these are adversarial examples of the target",
    ),
    Row("successes", "Attack, successes alone", "the images that every judge recognises"),
    Row("start", "Start", "the same sampling without a step of optimisation"),
    Row("lower", "Photographs of other people", "what knowing nothing reaches"),
)

MEASURES = (
    Measure(
        "judge_accuracy",
        "Judge accuracy",
        "up",
        True,
        "share of images whose first choice, under classifiers that the attack never saw, is the person sought; the "
        "mean of the judges",
    ),
    Measure(
        "judge_accuracy_top5", "Judge accuracy, top 5", "up", True, "the same among each judge's first five choices"
    ),
    Measure(
        "target_accuracy",
        "Target accuracy",
        "up",
        True,
        "the same under the audited classifier, which the attack optimises: flattering by construction",
    ),
    Measure(
        "overfit_gap",
        "Overfit gap",
        "zero",
        True,
        "target minus judge accuracy; far above 0 means images that please the target alone",
    ),
    Measure(
        "identity_cosine",
        "Identity cosine",
        "up",
        False,
        "cosine to the person's private mean under the judges' encoder; 1 is the same direction",
    ),
    Measure(
        "knn_distance",
        "Nearest photograph",
        "down",
        False,
        "distance to the person's nearest private photograph, between unit embeddings, 0 to 2",
    ),
    Measure(
        "diversity",
        "Diversity",
        "varied",
        False,
        "mean perceptual distance between the images of one person, by the network of the attack's perceptual term; "
        "near 0 means the same image again and again",
    ),
    Measure(
        "embedding_variance",
        "Embedding variance",
        "varied",
        False,
        "one less the squared length of the mean unit embedding of one person's images, under the judges' encoder; it "
        "grows with their number: compare rows of as many",
    ),
    Measure(
        "perceptual_distance",
        "Distance to source",
        "nearer",
        False,
        "perceptual distance to the public source picture, by the network of the attack's perceptual term; lower is "
        "nearer to the source, not better",
    ),
    Measure(
        "factor_error",
        "Factor error",
        "down",
        False,
        "mean error of the recovered identity factors, in public standard deviations (known factors only)",
    ),
)

DIRECTIONS = {
    "up": ("\N{UPWARDS ARROW}", "higher: more is leaked"),
    "down": ("\N{DOWNWARDS ARROW}", "lower: more is leaked"),
    "nearer": ("\N{DOWNWARDS ARROW}", "lower is nearer to the source, not better"),
    "varied": ("\N{UPWARDS ARROW}", "higher: more varied images of one person"),
    "zero": ("\N{RIGHTWARDS ARROW}0", "near 0 is sound"),
    "fools": ("\N{UPWARDS ARROW}", "higher: more models are fooled"),
    "known": ("\N{UPWARDS ARROW}", "higher: more clean pictures were right"),
    "honest": ("\N{UPWARDS ARROW}", "higher: more pictures still deserve their label"),
    "visible": ("\N{DOWNWARDS ARROW}", "lower: less visible"),
    "alike": ("\N{UPWARDS ARROW}", "higher: less visible"),
    "cost": ("\N{DOWNWARDS ARROW}", "lower: faster"),
    "apart": ("\N{DOWNWARDS ARROW}", "lower: more like the photographs; 0 is expected of equals"),
    "real": ("\N{UPWARDS ARROW}", "higher: more of the images lie among the photographs"),
    "crowded": ("\N{RIGHTWARDS ARROW}1", "near 1 is alike; above it the images crowd"),
    "reached": ("\N{UPWARDS ARROW}", "higher: more of the photographs have their like"),
}


FRECHET_DISTANCE = Measure(
    "frechet_distance",
    "Frechet distance",
    "apart",
    False,
    "squared distance between Gaussians fitted to the two sets (FID with another network)",
)
"""Of sets of images, in either audit."""


def attribute_measures(metrics: Json) -> tuple[Measure, ...]:
    """The attribute errors that the run holds, as columns."""
    return tuple(
        Measure(
            f"attribute_error.{name}",
            f"{name.replace('_', ' ').capitalize()} error",
            "nearer",
            False,
            f"difference in {name.replace('_', ' ')} to the source, in public standard deviations; lower is nearer to "
            "the source, not better",
        )
        for name in metrics.get("attribute_error") or {}
    )


def row_metrics(metrics: Json, row: str) -> Json | None:
    """The measures of one row of ``metrics.json``; None where the run has no such row."""
    if row == "attack":
        return metrics
    measures: Json | None = (
        metrics.get("successes") if row == "successes" else (metrics.get("reference") or {}).get(row)
    )
    return measures if measures and measures.get("samples") else None


def found(measures: Json, key: str) -> Json | None:
    """The value and interval of a measure; ``attribute_error.pose`` reaches inside."""
    value: Any = measures
    for part in key.split(".", 1):
        value = (value or {}).get(part)
    return value if isinstance(value, Mapping) and value.get("value") is not None else None


def percentage(share: float) -> str:
    """The number alone, such as ``61`` or, near the ends where digits matter, ``1.2``."""
    number = round(100 * share, 6)
    return f"{number:.1f}" if 0 < number < 2 or 98 < number < 100 else f"{math.floor(number + 0.5)}"


def percent(share: float) -> str:
    """A share as a percentage with as many digits as it bears.

    >>> percent(0.6125).replace(NO_BREAK, " "), percent(0.012).replace(NO_BREAK, " ")
    ('61 %', '1.2 %')
    """
    return f"{percentage(share)}{NO_BREAK}%"


def interval_of_share(measure: Json) -> str:
    """The interval of a share, such as ``52-70 %``; empty where there is none."""
    if measure["low"] is None:
        return ""
    return f"{percentage(measure['low'])}{DASH}{percentage(measure['high'])}{NO_BREAK}%"


def signed_points(share: float) -> str:
    """A difference of shares in percentage points, with its sign.

    >>> signed_points(0.125)
    '+12.5'
    """
    number = round(100 * share, 1)
    return f"{'+' if number > 0 else MINUS if number < 0 else ''}{abs(number):.1f}"


def points(measure: Json) -> str:
    """A difference of shares in percentage points, with its interval."""
    text = f"{signed_points(measure['value'])} points"
    if measure["low"] is None:
        return text
    return f"{text} (95{NO_BREAK}% interval {signed_points(measure['low'])} to {signed_points(measure['high'])})"
