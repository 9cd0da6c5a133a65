"""What the tables of an ablation show, and what they call it: the one place where the two audits' pages differ."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.report.perturbation_wording import DISTANCES, KEPT, SUCCESS, attack_title, defence_measure
from diffaudit.report.wording import MEASURES, Measure

Json = Mapping[str, Any]

MODES = {"one_step": "one step", "rollout": "rollout", None: ""}
MODELS_SHOWN = 4
"""Up to so many held-out models have a column each."""

_BY_KEY = {measure.key: measure for measure in MEASURES}
_INVERSION = (
    _BY_KEY["judge_accuracy"],
    _BY_KEY["target_accuracy"],
    _BY_KEY["overfit_gap"],
    Measure("gap_closed", "Gap closed", "up", True, "share of the gap in judge accuracy from row start to oracle"),
    _BY_KEY["identity_cosine"],
    _BY_KEY["diversity"],
    _BY_KEY["perceptual_distance"],
    Measure("attribute_error", "Attribute error", "nearer", False, "to the source, mean of the attributes"),
    _BY_KEY["factor_error"],
)
_TITLES = {
    "oracle": "oracle (not an attack)",
    "upper": "photographs of the people",
    "lower": "photographs of others",
    REBUILT: "rebuilt, no perturbation (not an attack)",
}


@dataclass(frozen=True)
class Layout:
    """The tables of one audit's ablation.

    Attributes:
        columns: what the tables show; ``ablation.json`` holds more.
        headline: what the rows' figure shows.
        recognition: what effect sizes and secondary tests are shown of, each measure with its name in a line.
        cluster: what intervals draw, and the tests take as independent.
        baseline: what a row is compared with.
        family: what is corrected together, by column.
        pairs: what the exact McNemar test takes as independent, and why it is secondary.
        seconds: what the seconds are of.
        lines: the reference rows at which the rows' figure has lines.
        price: what a gain in the headline may be bought with; None where nothing is.
        notes: what must be known of the columns beside their meaning.
    """

    columns: tuple[Measure, ...]
    headline: Measure
    recognition: tuple[tuple[str, str], ...]
    cluster: str
    baseline: str
    family: str
    pairs: str
    seconds: str
    lines: tuple[str, ...]
    price: Measure | None = None
    notes: tuple[str, ...] = ()


def layout_of(ablation: Json) -> Layout:
    """The layout of an ``ablation.json``, with a column for what its rows measured."""
    if ablation["audit"] == "perturbation":
        return _perturbation(ablation["rows"])
    known = [_BY_KEY[key] for key in ("judge_accuracy", "target_accuracy", "identity_cosine", "factor_error")]
    return Layout(
        columns=_INVERSION,
        headline=_BY_KEY["judge_accuracy"],
        recognition=(
            *((measure.key, measure.title.lower()) for measure in known),
            *((key, f"judge {name}") for key, name in _named(ablation["rows"], "judges.")),
        ),
        cluster="class",
        baseline="the baseline of its mode",
        family="the rows of both modes in the same column",
        pairs="images as independent, which images of one class are not",
        seconds="training and drawing of one run's images",
        lines=("start", "oracle"),
    )


def title(row: Json) -> str:
    """A row as tables name it.

    >>> title({"name": "B", "mode": "one_step", "reference": False})
    'B (one step)'
    >>> title({"name": "pgd-8", "mode": None, "reference": True})
    'PGD 8/255 (on pixels)'
    """
    if row["name"] in _TITLES:
        return _TITLES[row["name"]]
    if row["reference"] and row["name"] != "start":
        return f"{attack_title(row['name'])} (on pixels)"
    return f"{row['name']} ({MODES[row['mode']]})" if row["mode"] else str(row["name"])


def _perturbation(rows: Sequence[Json]) -> Layout:
    transfer = next(measure for measure in SUCCESS if measure.key == "transfer_mean")
    white_box = next(measure for measure in SUCCESS if measure.key == "white_box_mean")
    distances = {measure.key: measure for measure in DISTANCES}
    models = [
        Measure(key, f"Held-out {name}", "fools", True, f"the same of {name} alone")
        for key, name in _named(rows, "transfer.")
    ]
    siblings = [
        Measure(key, f"{name} (sibling)", "fools", True, f"the same of {name}, a relative of a surrogate")
        for key, name in _named(rows, "sibling.")
    ]
    behind = [defence_measure(name, "defended") for _, name in _named(rows, "defended.")]
    known = {key for row in rows for key, measure in row["metrics"].items() if measure}
    kept = [measure for measure in KEPT if measure.key in known]
    headline = next((measure for measure in (*kept, transfer) if measure.key in known), white_box)
    return Layout(
        columns=(
            white_box,
            transfer,
            *kept,
            *(models if 1 < len(models) <= MODELS_SHOWN else ()),
            *siblings,
            *behind,
            *(distances[key] for key in ("perceptual_distance", "ssim", "psnr", "linf")),
        ),
        headline=headline,
        recognition=(
            (white_box.key, white_box.title.lower()),
            (transfer.key, transfer.title.lower()),
            *((measure.key, measure.title.lower()) for measure in kept),
            *((measure.key, measure.title.replace("Held-out", "held-out")) for measure in models),
            ("perceptual_distance", "perceptual distance"),
        ),
        cluster="picture",
        baseline="the baseline",
        family="the rows in the same column",
        pairs="pairs of a picture and a model as independent, which models and seeds that meet one picture are not",
        seconds="making one run's images, all pictures together",
        lines=(REBUILT,),
        price=distances["perceptual_distance"],
        notes=(
            "Surrogates fooled: of each row's own surrogates, so that rows made on others than the baseline's are not "
            "compared in it.",
            "More transfer counts at no larger a perceptual distance: read the two columns together.",
        ),
    )


def _named(rows: Iterable[Json], prefix: str) -> list[tuple[str, str]]:
    """The measures of the rows that begin so, and the rest of their names."""
    keys = dict.fromkeys(key for row in rows for key in row["metrics"] if key.startswith(prefix))
    return [(key, key.removeprefix(prefix)) for key in keys]
