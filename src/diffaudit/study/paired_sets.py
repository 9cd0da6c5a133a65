"""Adversarial images as a set: does it look like the set of the clean pictures that it was made from?

Measured in the unit embeddings of the judges' identity encoder, which is not the Inception network that KID and FID are
defined by: the numbers stand under their own names and compare with no published ones. A distance to the clean picture
says how far each image went; these say whether all went the same way, away from where pictures lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffaudit.judging import frechet_distance, paired_kernel_discrepancies
from diffaudit.study.distribution import FRECHET_MINIMUM, MINIMUM, frechet_minimum, mean_discrepancy
from diffaudit.study.statistics import Value

Json = dict[str, Any]


def set_distances(
    rows: Mapping[str, Tensor], clean: Tensor, *, seed: int = 0, resamples: int = 10_000
) -> tuple[dict[str, Json], list[str]]:
    """Return each row's distances to the clean pictures as sets, and notes on what is missing and why.

    The first is ``{row: {"kernel_distance", "frechet_distance"}}``, each ``{"value", "low", "high"}`` or null where
    there are too few images (:data:`~diffaudit.study.distribution.MINIMUM`,
    :func:`~diffaudit.study.distribution.frechet_minimum`). The kernel distance, that of
    :func:`~diffaudit.judging.paired_kernel_discrepancies`, has an interval over pictures.

    Args:
        rows: unit embeddings ``(N, D)`` of the images of each.
        clean: unit embeddings ``(N, D)`` of the same pictures before the attack, in the same order.
        seed: of the bootstrap.
        resamples: its draws.

    Raises:
        ValueError: an embedding is not finite, or a row differs in shape from the clean pictures.
    """
    count, dimension = clean.shape
    found: dict[str, Json] = {row: {"kernel_distance": None, "frechet_distance": None} for row in rows}
    notes = []
    if count < MINIMUM:
        notes.append(f"kernel_distance: needs at least {MINIMUM} images, has {count}.")
    else:
        scale = dimension**0.5  # of features of order one
        for row, images in rows.items():
            added = paired_kernel_discrepancies(scale * images, scale * clean, minimum=MINIMUM)
            distance = mean_discrepancy(added, torch.arange(count), seed=seed, resamples=resamples)
            found[row]["kernel_distance"] = distance.to_json()
    if count < frechet_minimum(dimension):
        notes.append(f"frechet_distance: needs at least {frechet_minimum(dimension)} images, has {count}.")
    else:
        for row, images in rows.items():
            distance = Value(frechet_distance(images, clean, minimum=FRECHET_MINIMUM).item(), None, None)
            found[row]["frechet_distance"] = distance.to_json()
    return found, notes
