"""How far a training has moved what it began at: label embeddings and learned centres, over the classes sought."""

from typing import Any

from torch import Tensor

from diffaudit.inversion.state import TrainingState
from diffaudit.terms import LearnedCentre


def travel(state: TrainingState) -> dict[str, Any]:
    """Return key ``travel`` of ``metrics.json``: ``embedding`` and ``centres``, each ``{"mean", "largest", "unit"}``.

    Mean and largest are over the classes sought: of the label embeddings the angle to the anchor where each began, in
    degrees, of learned centres :func:`~diffaudit.terms.centre_travel`, in units of their spread at the start. Null
    without learned centres, and where a single class gives them no spread.
    """
    terms = state.objective.terms.values()
    ways = [term.travel(state.attacker.classes) for term in terms if isinstance(term, LearnedCentre)]
    return {
        "embedding": _over_classes(state.embedding.travel(), "degrees"),
        "centres": _over_classes(ways[0] if ways else None, "spread of the centres at the start"),
    }


def _over_classes(ways: Tensor | None, unit: str) -> dict[str, Any] | None:
    return None if ways is None else {"mean": float(ways.mean()), "largest": float(ways.max()), "unit": unit}
