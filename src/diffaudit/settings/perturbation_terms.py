"""What a perturbation is asked for: the surrogates' loss, and terms of attention, structure and distance."""

from typing import Annotated, Literal

from pydantic import Field

from diffaudit.settings.base import Positive, Section, Share, Weight
from diffaudit.settings.latents import Layers


class Ramp(Section):
    """A weight that moves over the iterations."""

    start: Weight
    end: Weight
    shape: Literal["linear", "cosine"] = "linear"


Ramped = Weight | Ramp

Grid = Annotated[Positive, Field(ge=2)]
"""Side of the grid that maps of a label are brought to; of one place nothing could be said."""


class CrossEntropyLoss(Section):
    """Cross-entropy of the true class, negated; or of the goal."""

    kind: Literal["ce"] = "ce"
    weight: Ramped = 1.0


class MarginLoss(Section):
    """The lead of the true class over its strongest rival, down to ``-kappa`` (Carlini and Wagner's).

    Below ``-kappa`` there is no gradient. At the usual 0 that is as soon as a model is fooled at all, by a margin that
    other models seldom share, and `budget.stop_margin` would never be reached: so ``kappa`` is as large by default, and
    never smaller.
    """

    kind: Literal["margin"] = "margin"
    weight: Ramped = 1.0
    kappa: Weight = 5.0


class DlrLoss(Section):
    """The difference of logits ratio: the same lead, whatever the logits' scale."""

    kind: Literal["dlr"] = "dlr"
    weight: Ramped = 1.0


class DistributionLoss(Section):
    """The distance of the predicted distribution from a uniform one, or from one peaked on the rival class."""

    kind: Literal["distribution"] = "distribution"
    weight: Ramped = 1.0
    distance: Literal["js", "ce"] = "js"
    toward: Literal["uniform", "distractor"] = "uniform"
    share: Share = 0.9
    """Of the rival class, where it is peaked there."""


AnyAttackLoss = Annotated[CrossEntropyLoss | MarginLoss | DlrLoss | DistributionLoss, Field(discriminator="kind")]


TermScale = Literal["none", "first", "ema"]


class PerturbationTerm(Section):
    """What every term has: its weight over the iterations, and what its values are divided by first, per image.

    Terms of attention are brought to order one first, for what a map is worth differs from prior to prior.
    """

    weight: Ramped
    scale: TermScale = "none"


class VarianceTerm(PerturbationTerm):
    """Variance of the true label's cross-attention; ``joint``: over space and the label's tokens together."""

    kind: Literal["variance"] = "variance"
    weight: Ramped = 1.0
    scale: TermScale = "first"
    layers: Layers = Layers()
    joint: bool = False
    side: Grid = 8


class EntropyTerm(PerturbationTerm):
    """How far the true label's cross-attention is from being spread evenly over the picture."""

    kind: Literal["entropy"] = "entropy"
    weight: Ramped = 0.2
    scale: TermScale = "first"
    layers: Layers = Layers()
    side: Grid = 8


class ContrastTerm(PerturbationTerm):
    """A hinge on the share of attention that the true label has beside the distractor."""

    kind: Literal["contrast"] = "contrast"
    weight: Ramped = 0.35
    scale: TermScale = "first"
    layers: Layers = Layers()
    margin: Annotated[Weight, Field(le=1)] = 0.2


class ReplaceTerm(PerturbationTerm):
    """The true label's attention against the distractor's in the distractor's own prompt."""

    kind: Literal["replace"] = "replace"
    weight: Ramped = 0.35
    scale: TermScale = "first"
    layers: Layers = Layers()
    norm: Literal["l1", "l2"] = "l1"


class DriftTerm(PerturbationTerm):
    """How much the true label's attention changes from one denoising step to the next."""

    kind: Literal["drift"] = "drift"
    weight: Ramped = 0.05
    scale: TermScale = "first"
    layers: Layers = Layers()


class SelfAttentionTerm(PerturbationTerm):
    """Self-attention after the perturbation against before: the layout stays."""

    kind: Literal["self_attention"] = "self_attention"
    weight: Ramped = 0.5
    scale: TermScale = "first"
    layers: Layers = Layers()
    divergence: Literal["mse", "kl", "js"] = "mse"


class FrequencyTerm(PerturbationTerm):
    """Details of the picture, by its Laplacian or in Haar wavelets (the extra `wavelets`), after against before."""

    kind: Literal["frequency"] = "frequency"
    weight: Ramped = 1.0
    detail: Literal["laplacian", "wavelet"] = "laplacian"


class DistanceTerm(PerturbationTerm):
    """The perceptual distance to the picture re-denoised without a perturbation."""

    kind: Literal["perceptual"] = "perceptual"
    weight: Ramped = 1.0


class PixelTerm(PerturbationTerm):
    """The mean squared difference of pixels to it."""

    kind: Literal["l2"] = "l2"
    weight: Ramped = 1.0


class ColourTerm(PerturbationTerm):
    """The difference of colours, averaged over the cells of a grid: the picture is not recoloured."""

    kind: Literal["colour"] = "colour"
    weight: Ramped = 1.0
    grid: Positive = 8


AnyPerturbationTerm = Annotated[
    VarianceTerm
    | EntropyTerm
    | ContrastTerm
    | ReplaceTerm
    | DriftTerm
    | SelfAttentionTerm
    | FrequencyTerm
    | DistanceTerm
    | PixelTerm
    | ColourTerm,
    Field(discriminator="kind"),
]
