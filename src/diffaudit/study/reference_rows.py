"""Rows that an ablation reads from its baselines' runs and never runs by themselves: what every row is read against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, assert_never

from diffaudit.records import REBUILT
from diffaudit.settings import AuditSettings, Finishing, InversionSettings, PerturbationSettings

REFERENCES = ("start", "oracle", "upper", "lower")
"""Those of inversions: the start of every attack, its ceiling, photographs."""
START_ROWS = (REFERENCES[0], REBUILT)
"""What there is without an attack; it stands above the rows."""


def references_of(settings: AuditSettings) -> tuple[str, ...]:
    """The reference rows that a run with these settings leaves in its records.

    >>> references_of(PerturbationSettings(judging={"references": [{"method": "pgd", "budget": 8}]}))
    ('rebuilt', 'pgd-8')
    """
    match settings:
        case InversionSettings():
            words = settings.embedding.kind == "textual_inversion"
            return tuple(row for row in REFERENCES if settings.reference_rows and not (words and row == "oracle"))
        case PerturbationSettings(judging=judging):
            rebuilt = (REBUILT,) if judging.rebuilt else ()
            return (*rebuilt, *(f"{attack.method}-{attack.budget}" for attack in judging.references))
        case _:
            assert_never(settings)


def without_references(settings: AuditSettings) -> AuditSettings:
    """The same settings, reference rows left out."""
    match settings:
        case InversionSettings():
            return settings.model_copy(update={"reference_rows": False})
        case PerturbationSettings(judging=judging):
            bare = judging.model_copy(update={"references": [], "rebuilt": False})
            return settings.model_copy(update={"judging": bare})
        case _:
            assert_never(settings)


def makers(rows: Sequence[tuple[AuditSettings, bool]]) -> list[bool]:
    """Which rows make reference rows, of their settings and whether they are baselines.

    Baselines alone do, and of two inversions' one where the other's would be the same images.
    """
    images: list[tuple[Any, ...]] = []
    found = []
    for settings, is_baseline in rows:
        about = start_of(settings) if isinstance(settings, InversionSettings) else (settings,)
        found.append(is_baseline and about not in images)
        images += [about] if found[-1] else []
    return found


def start_of(settings: InversionSettings) -> tuple[Any, ...]:
    """All that the images of rows `start` and `oracle` depend on, beside the seed."""
    sampling, embedding = settings.sampling.model_copy(update={"finishing": Finishing()}), settings.embedding
    begin = embedding.words if embedding.kind == "textual_inversion" else embedding.anchor_images
    return settings.attack, settings.classes, begin, sampling
