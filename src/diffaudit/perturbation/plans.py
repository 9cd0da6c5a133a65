"""What a perturbation is asked to do: its way through the latent, what is recorded, how it steps, when it ends."""

from dataclasses import dataclass
from typing import Literal

Place = Literal["down", "mid", "up"]


@dataclass(frozen=True)
class PathPlan:
    """``steps`` of DDIM; those from ``start`` on are denoised again, at this guidance."""

    steps: int
    start: int
    guidance_scale: float
    null_steps: int | None = None
    """Inner steps of null-text optimisation at the first time step; None: without."""
    null_rate: float = 0.1


@dataclass(frozen=True)
class RecordingPlan:
    """Which attention is recorded: cross, self or both, of these places, at steps inside the window of progress."""

    cross: bool
    self_attention: bool
    places: tuple[Place, ...]
    window: tuple[float, float]
    keep_heads: float


@dataclass(frozen=True)
class ViewPlan:
    """Random views for the surrogates: ``samples`` of them every ``every``-th iteration; 0: the picture as it is."""

    samples: int
    every: int
    rotation: float
    scale: tuple[float, float]
    hue: float
    noise: float


@dataclass(frozen=True)
class StepPlan:
    """How the latent moves: AdamW, or along the sign of a momentum."""

    kind: Literal["adamw", "momentum"]
    rate: float
    decay: float
    clip: float


@dataclass(frozen=True)
class BudgetPlan:
    """How far a perturbation may go; None: no bound of this kind."""

    iterations: int
    radius: float | None
    perceptual: float | None
    stop_margin: float | None
