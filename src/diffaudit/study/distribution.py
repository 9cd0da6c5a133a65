"""Images as a set: is each row's set of images like the set of held-out photographs of the same people?

Everything is measured in one space, the unit embeddings of the judges' identity encoder. It is the only space here that
the attack has never seen: the perceptual features are the attack's own, and a loss term pulls at them, so a distance in
them would flatter. It is not the Inception network that FID and KID are defined by, so the numbers stand under their
own names and compare with no published FID or KID; nor with those of other people or of another encoder. And a set
says nothing of who is who: it tells whether the images lie where these people's photographs lie, and are as varied.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from diffaudit.judging import (
    coverage,
    density,
    frechet_distance,
    kernel_discrepancies,
    precision,
    recall,
)
from diffaudit.study.statistics import Value, value

Json = dict[str, Any]

SPACE = "unit embeddings of the judges' identity encoder"
FRECHET_MINIMUM = 2048
"""The images that a Frechet distance needs in either set: its bias, which differs between rows, falls as 1/N."""
MINIMUM = 50
"""The images that every other measure needs in either set."""


@dataclass(frozen=True, eq=False)
class Embedded:
    """A set of images: unit ``embeddings (N, D)`` and the classes that they stand for, ``labels (N,)``."""

    embeddings: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def distribution_metrics(
    rows: Mapping[str, Embedded], references: Embedded, *, seed: int = 0, resamples: int = 10_000
) -> tuple[Json, list[str]]:
    """Return key ``distribution`` of ``metrics.json``, and notes on what is missing there and why.

    The first is ``{"space", "references", "classes", "rows": {row: {"n", measure: {"value", "low", "high"}}}}``, a
    measure null where a set is too small for it (:data:`MINIMUM`, :data:`FRECHET_MINIMUM`); its keys are those of
    :data:`MEASURES`. The kernel distance alone has an interval. The others rest on nearest neighbours or covariances,
    and a resampled set, in which images stand twice, has other ones: duplicates are their own neighbours at distance 0.

    Args:
        rows: each with the classes of the references. Of images of other people, any even partition will do.
        references: the photographs.
        seed: of the bootstrap.
        resamples: draws of it.

    Raises:
        ValueError: a row has other classes than the references, or an embedding is not finite.
    """
    missing: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    found: dict[str, Json] = {row: {"n": len(images)} for row, images in rows.items()}
    for name, measure in MEASURES.items():
        reasons: dict[str, list[str]] = defaultdict(list)
        for row, images in rows.items():
            reason = _lack(name, images, references)
            if reason:
                reasons[reason].append(row)
            found[row][name] = None if reason else measure(images, references, seed, resamples).to_json()
        for reason, lacking in reasons.items():
            missing[reason, tuple(lacking)].append(name)
    notes = []
    for (reason, whom), names in missing.items():
        whose = "" if len(whom) == len(rows) else f" of {', '.join(whom)}"
        notes.append(f"{', '.join(names)}{whose}: {reason}.")
    classes = len(references.labels.unique())
    return {"space": SPACE, "references": len(references), "classes": classes, "rows": found}, notes


def mean_discrepancy(added: Tensor, clusters: Tensor, *, seed: int = 0, resamples: int = 10_000) -> Value:
    r"""Return the mean of what each class, or each pair, adds to a kernel distance, with its interval over these.

    Shapes ``(C,), (C,)``: row means of :func:`~diffaudit.judging.kernel_discrepancies`, or
    :func:`~diffaudit.judging.paired_kernel_discrepancies`. With :math:`h_c` one of them and :math:`\bar h` their mean,
    the shares :math:`2 h_c - \bar h` have the same mean, and it is their mean that is resampled: to first order, what a
    draw of other classes does to the distance. Drawing the matrix's rows and columns with replacement instead would
    pair classes with their own copies more often than they meet; that interval is up to 1.7 times as wide. Of "95 %"
    intervals 95 to 100 % hold the truth, most where the distance is 0 (tests simulate it).

    Paper: Arcones and Gine, "On the Bootstrap of U and V Statistics" (1992).

    >>> import torch
    >>> mean_discrepancy(torch.tensor([0.5]), torch.tensor([7]))
    Value(value=0.5, low=None, high=None)
    """
    shares = 2 * added - added.mean()
    generator = np.random.default_rng(seed)
    return value(shares.numpy(), clusters.numpy(), resamples=resamples, generator=generator)


def frechet_minimum(dimension: int) -> int:
    """The images that a Frechet distance needs in a space of ``dimension``: without more, covariances are singular."""
    return max(FRECHET_MINIMUM, dimension + 1)


def _kernel_distance(images: Embedded, references: Embedded, seed: int, resamples: int) -> Value:
    """Lengths are the root of D, as features of order one have: the kernel is then (cosine + 1) cubed, in [0, 8]."""
    scale = images.embeddings.shape[1] ** 0.5
    discrepancies = kernel_discrepancies(
        scale * images.embeddings, images.labels, scale * references.embeddings, references.labels, minimum=MINIMUM
    )
    return mean_discrepancy(discrepancies.mean(dim=1), images.labels.unique(), seed=seed, resamples=resamples)


def _without_interval(measure: Callable[..., Tensor], minimum: int) -> Callable[..., Value]:
    def mean(images: Embedded, references: Embedded, seed: int, resamples: int) -> Value:
        found = measure(images.embeddings, references.embeddings, minimum=minimum)
        return Value(found.double().mean().item(), None, None)

    return mean


MEASURES: dict[str, Callable[[Embedded, Embedded, int, int], Value]] = {
    "kernel_distance": _kernel_distance,
    "frechet_distance": _without_interval(frechet_distance, FRECHET_MINIMUM),
    "precision": _without_interval(precision, MINIMUM),
    "recall": _without_interval(recall, MINIMUM),
    "density": _without_interval(density, MINIMUM),
    "coverage": _without_interval(coverage, MINIMUM),
}
"""The measures by name; each takes the images, the references, a seed and a number of draws."""


def _lack(name: str, images: Embedded, references: Embedded) -> str:
    """Why the sets are too small for a measure; empty where they are not."""
    least = frechet_minimum(images.embeddings.shape[1]) if name == "frechet_distance" else MINIMUM
    smallest = min(len(images), len(references))
    if smallest < least:
        return f"needs at least {least} images in each set, has {smallest}"
    if name == "kernel_distance":
        fewest = min(int(each.labels.unique(return_counts=True)[1].min()) for each in (images, references))
        if fewest < 2:
            return "needs two images of every class in each set, has one"
    return ""
