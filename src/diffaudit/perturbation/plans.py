"""What a perturbation is asked to do: its way through the latent, what is recorded, how it steps, when it ends."""

from collections.abc import Mapping
from dataclasses import dataclass, field
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

    @property
    def reads_words(self) -> bool:
        """Whether some layer attends to the prompt."""
        return any(layer.kind == "cross" for layer in self.layers)


@dataclass(frozen=True)
class MaskPlan:
    """Where a perturbation acts: everywhere, where the label is attended to, or where Grad-CAM sees the class.

    Attributes:
        kind: which of them.
        threshold: the mask is 1 from there on and 0 below; None: soft.
        layers: whose attention it is, and what each counts.
    """

    kind: Literal["none", "attention", "grad_cam"] = "none"
    threshold: float | None = None
    layers: Mapping[AttentionLayer, float] = field(default_factory=dict)


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
    mask: MaskPlan = field(default_factory=MaskPlan)
