"""The words of a perturbation's report and of an ablation's: measures, roles, and what attacks are called."""

import re
from collections.abc import Mapping
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.report.wording import FRECHET_DISTANCE, Measure, found

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
        "share of the models that the attack was made on which it fools, counted alike: flattering by construction",
    ),
)
"""Whom an attack fools."""

KEPT = (
    Measure(
        "transfer_kept",
        "Held-out models fooled, label kept",
        "fools",
        True,
        "the same, with every picture counted as a failure that no longer deserves its label by the rule that labels "
        "come from: what was really recoloured fools nobody",
    ),
    Measure("label_kept", "Label kept", "honest", True, "share of the pictures that still deserve their label"),
)
"""The same where the truth can be asked again."""

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
    Measure(
        "kernel_distance",
        "Kernel distance",
        "apart",
        False,
        "squared distance between the images and the clean pictures as sets, under the cubic kernel and the judges' "
        "identity encoder (KID with another network, without its random subsets, no image held against its own "
        "picture); an estimate without bias, so it may come out below 0",
        4,
    ),
    FRECHET_DISTANCE,
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


def headline(measures: Mapping[str, Any]) -> Measure:
    """The success that counts: where the label is kept if that is known, else all of it."""
    return KEPT[0] if found(measures, KEPT[0].key) else SUCCESS[0]


def attack_title(row: str) -> str:
    """What a row of the records is called.

    >>> attack_title("attack"), attack_title("mi-fgsm-8"), attack_title("square"), attack_title("rebuilt")
    ('Attack', 'MI-FGSM 8/255', 'square', 'Rebuilt, no perturbation')
    """
    if row in _TITLES:
        return _TITLES[row]
    family, budget = attack_family(row)
    return f"{family} {budget}".strip()


def attack_family(row: str) -> tuple[str, str]:
    """The method of a reference attack, and its budget; a name without a budget is its own method.

    >>> attack_family("pgd-8"), attack_family("square")
    (('PGD', '8/255'), ('square', ''))
    """
    found = re.fullmatch(r"(.+)-(\d+)", row)
    return (found[1].upper(), f"{found[2]}/255") if found else (row, "")


def defence_measure(name: str, key: str) -> Measure:
    """Success behind a defence as a column; ``key`` leads to the measure."""
    meaning = f"models fooled behind the defence {name}, among those right on the clean picture behind it"
    return Measure(f"{key}.{name}", f"Behind {name}", "fools", True, meaning)


_TITLES = {"attack": "Attack", REBUILT: "Rebuilt, no perturbation"}
