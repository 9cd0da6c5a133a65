"""Tables of a perturbation's report: attacks side by side, models in their roles, defences, distances."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from diffaudit.report.tables import Table, table_line
from diffaudit.report.wording import Measure, Row, found

Json = Mapping[str, Any]

SUCCESS = (
    Measure(
        "transfer_mean",
        "Held-out models fooled",
        "fools",
        True,
        "share of the models that the attack never saw which it fools, among those that were right on the clean "
        "picture; the mean over pictures",
    ),
    Measure(
        "white_box_mean",
        "Surrogates fooled",
        "fools",
        True,
        "the same of the models that the attack was made on: flattering by construction",
    ),
)
"""Whom an attack fools."""

DISTANCES = (
    Measure(
        "perceptual_distance",
        "Perceptual distance",
        "visible",
        False,
        "squared distance of channel-normalised features of a small network to the clean picture; LPIPS in form, "
        "not in weights",
        4,
    ),
    Measure("ssim", "SSIM", "alike", False, "structural similarity to the clean picture; 1 is the same picture"),
    Measure("psnr", "PSNR, dB", "alike", False, "peak signal to noise ratio to the clean picture", 1),
    Measure("l2", "L2", "visible", False, "root of the sum of squared differences, of images in [0, 1]", 2),
    Measure("linf", "L-inf", "visible", False, "largest difference of a value; 8/255 is 0.031"),
    Measure(
        "colour_difference",
        "Colour difference",
        "visible",
        False,
        "mean Delta E (CIE 1976) over the pixels; about 2.3 is just noticeable on a flat surface",
        2,
    ),
    Measure(
        "reconstruction_psnr",
        "Inversion alone, dB",
        "alike",
        False,
        "peak signal to noise ratio of what DDIM inversion gives back without an attack: the change that the "
        "autoencoder and the sampler make by themselves",
        1,
    ),
    Measure("seconds_per_image", "Seconds an image", "cost", False, "time over the whole row, all images together", 2),
)
"""How far an attack goes, and what it costs."""

CLEAN = Measure(
    "clean_accuracy", "Clean accuracy", "known", True, "share of the clean pictures that the model has right"
)

ROLES = {
    "surrogate": "surrogate: the attack was made on it",
    "heldout": "held out: the attack never saw it",
    "sibling": "a relative of a surrogate",
}


def attack_rows(metrics: Json) -> list[tuple[Row, Json]]:
    """The attack and every reference, each with its measures."""
    rows = [(Row("attack", "Attack", "in the diffusion latent"), metrics)]
    rows += [(Row(name, attack_title(name), "on pixels"), found) for name, found in metrics["references"].items()]
    return [(row, {**found, "samples": found["images"], "classes": metrics["classes"]}) for row, found in rows]


def attack_title(row: str) -> str:
    """What a row of the records is called.

    >>> attack_title("attack"), attack_title("mi-fgsm-8"), attack_title("square")
    ('Attack', 'MI-FGSM 8/255', 'square')
    """
    if row == "attack":
        return "Attack"
    budget = re.fullmatch(r"(.+)-(\d+)", row)
    return f"{budget[1].upper()} {budget[2]}/255" if budget else row


def attacks_table(metrics: Json) -> Table:
    """Success, the perceptual distance that it cost, and time, by attack."""
    distances = [one for one in DISTANCES if one.key in ("perceptual_distance", "seconds_per_image")]
    return _by_attack(
        metrics,
        "attacks",
        "Success is counted on pictures that the model first got right. Shares in percent; intervals are 95 % "
        "bootstraps clustered by class.",
        [*SUCCESS, *distances],
    )


def distances_table(metrics: Json) -> Table:
    """Every distance to the clean picture, by attack."""
    return _by_attack(
        metrics,
        "distances",
        "Means over all pictures, failures included; intervals are 95 % bootstraps clustered by class.",
        DISTANCES[:-1],
    )


def defences_table(metrics: Json) -> Table:
    """Held-out models fooled behind each defence, by attack."""
    return _by_attack(metrics, "defences", _behind("Held-out models"), defence_measures(metrics))


def white_box_defences_table(metrics: Json) -> Table:
    """Surrogates fooled behind each defence, by attack."""
    measures = [_defence(name, "defended_white_box") for name in metrics["defended_white_box"]]
    return _by_attack(metrics, "white-box-defences", _behind("Surrogates"), measures)


def models_table(metrics: Json) -> Table:
    """Every model's clean accuracy, and how often each attack fools it."""
    attacks = [
        Measure(f"success.{row.key}", row.title, "fools", True, f"pictures on which {row.title} fools the model")
        for row, _ in attack_rows(metrics)
    ]
    lines = []
    for role, words in ROLES.items():
        for name in (name for name, held in metrics["models"].items() if held == role):
            success = {row.key: _success(measures, name) for row, measures in attack_rows(metrics)}
            warning = "not counted as transfer" if role == "sibling" else ""
            measures = {
                "samples": metrics["images"],
                "classes": metrics["classes"],
                "clean_accuracy": metrics["clean_accuracy"][name],
                "success": success,
            }
            lines.append(table_line(Row(role, name, words, warning), measures, [CLEAN, *attacks]))
    return Table(
        "models",
        "By model, the share of the pictures it first got right that fool it, in percent; intervals are 95 % "
        "bootstraps clustered by class.",
        (CLEAN, *attacks),
        tuple(lines),
    )


def defence_measures(metrics: Json) -> list[Measure]:
    """No defence, and every defence of the run, as columns."""
    return [
        Measure("transfer_mean", "No defence", "fools", True, SUCCESS[0].meaning),
        *(_defence(name, "defended_success") for name in metrics["defended_success"]),
    ]


def _defence(name: str, key: str) -> Measure:
    meaning = f"models fooled behind the defence {name}, among those right on the clean picture behind it"
    return Measure(f"{key}.{name}", f"Behind {name}", "fools", True, meaning)


def _behind(models: str) -> str:
    return (
        f"{models} fooled behind a defence, in percent of the pictures that they have right behind it; a randomised "
        "defence is tried several times. Intervals are 95 % bootstraps clustered by class."
    )


def _by_attack(metrics: Json, name: str, caption: str, columns: Sequence[Measure]) -> Table:
    """A line an attack; columns that no attack has are left out."""
    rows = attack_rows(metrics)
    kept = tuple(column for column in columns if any(found(measures, column.key) for _, measures in rows))
    return Table(name, caption, kept, tuple(table_line(row, measures, kept) for row, measures in rows))


def _success(measures: Json, model: str) -> Json | None:
    groups = ("white_box_success", "transfer_success", "sibling_success")
    return next((measures[group][model] for group in groups if model in measures[group]), None)
