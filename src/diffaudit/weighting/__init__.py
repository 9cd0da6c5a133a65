"""Weightings: the groups of terms, combined by name."""

from diffaudit.weighting.base import Weighting, weighted_sum
from diffaudit.weighting.fixed import Fixed
from diffaudit.weighting.staged import Staged, StageWeights, handover_fraction

__all__ = ["Fixed", "StageWeights", "Staged", "Weighting", "handover_fraction", "weighted_sum"]
