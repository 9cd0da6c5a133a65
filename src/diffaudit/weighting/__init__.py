"""Weightings: the groups of terms, combined by name."""

from diffaudit.weighting.base import Weighting, require_bounded, weighted_sum
from diffaudit.weighting.fixed import Fixed
from diffaudit.weighting.gradient import GradientWeighting, JacobianDescent, loss_gradients
from diffaudit.weighting.ramped import Ramp, Ramped
from diffaudit.weighting.scale import Scale, ScaleKind, next_scale
from diffaudit.weighting.staged import Staged, StageWeights, handover_fraction
from diffaudit.weighting.uncertainty import Uncertainty, uncertainty_loss

__all__ = [
    "Fixed",
    "GradientWeighting",
    "JacobianDescent",
    "Ramp",
    "Ramped",
    "Scale",
    "ScaleKind",
    "StageWeights",
    "Staged",
    "Uncertainty",
    "Weighting",
    "handover_fraction",
    "loss_gradients",
    "next_scale",
    "require_bounded",
    "uncertainty_loss",
    "weighted_sum",
]
