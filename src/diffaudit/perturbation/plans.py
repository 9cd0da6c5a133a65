"""What a perturbation is asked to do: its way through the latent, what is recorded, how it steps, when it ends."""

from dataclasses import dataclass
from typing import Literal

from diffaudit.attention import AttentionLayer


@dataclass(frozen=True)
class PathPlan:
    """``steps`` of DDIM; those from ``start`` on are denoised again, at this guidance."""

    steps: int
    start: int
    guidance_scale: float
    null_steps: int | None = None
    """Inner steps of null-text optimisation at the first time step; None: without."""
    null_rate: float = 0.1
    residual: bool = False
    """Whether what inversion and autoencoder lose of a picture is added back to all that is rendered from it."""


@dataclass(frozen=True)
class RecordingPlan:
    """Which attention is recorded: that of these layers, at steps inside the window of progress.

    Attributes:
        layers: of the prior's UNet.
        window: first and last progress.
        keep_heads: share of the heads of cross-attention that an iteration reads, drawn at random; 1: all.
        head_weights: what each head of cross-attention counts; None: once each.
        with_rival: whether the clean way is also looked at under the prompt with both names exchanged.
    """

    layers: tuple[AttentionLayer, ...] = ()
    window: tuple[float, float] = (0.0, 1.0)
    keep_heads: float = 1.0
    head_weights: tuple[float, ...] | None = None
    with_rival: bool = False


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
    keep: Literal["best", "last"] = "best"
    """Which iterate of a picture is kept; the last one is the one at which it was left alone."""


@dataclass(frozen=True)
class Plans:
    """All that a perturbation is asked to do."""

    path: PathPlan
    recording: RecordingPlan
    views: ViewPlan
    step: StepPlan
    budget: BudgetPlan
