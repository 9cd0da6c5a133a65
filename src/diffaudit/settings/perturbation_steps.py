"""How a perturbation moves: the ensemble's rule, random transformations, the step, and the budget that ends it."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit.settings.base import Count, Positive, Rate, Real, Section, Weight


class Ensemble(Section):
    """How the surrogates' gradients become one.

    Attributes:
        kind: `mean`; `weighted` as ``weights`` say; `worst`: the least fooled one; `agreement`: by the
            cosine with the mean direction; `improvement`: by how much the margin of each has grown of late; `adaea`:
            adaptive gradient modulation with the disparity-reduced filter.
        of: what `mean` is the mean of: the models' losses, or their logits, whose one loss is taken.
        space: where gradients are compared: at the decoded image, with one pull-back, or at the latent, with one a
            model.
        unit: whether the combined gradient is brought to length 1 at each picture's latent before it is weighed.
        tau: sharpness of `agreement` and `improvement`.
        as_published: `adaea` with the published code's fault, for comparison.
    """

    kind: Literal["mean", "weighted", "worst", "agreement", "improvement", "adaea"] = "agreement"
    of: Literal["losses", "logits"] = "losses"
    space: Literal["image", "latent"] = "image"
    unit: bool = True
    weights: list[Weight] | None = None
    tau: Weight = 7.0
    as_published: bool = False

    @model_validator(mode="after")
    def _logits_have_a_mean(self) -> Self:
        if self.of == "logits" and self.kind != "mean":
            raise ValueError(f"`of` should be losses where `kind` is {self.kind}. Found 'logits'.")
        return self

    @model_validator(mode="after")
    def _published_faults_are_adaeas(self) -> Self:
        if self.as_published and self.kind != "adaea":
            raise ValueError(f"`as_published` should be false where `kind` is {self.kind}. Found true.")
        return self

    @model_validator(mode="after")
    def _weights_where_they_count(self) -> Self:
        if self.kind == "weighted" and not any(self.weights or ()):
            raise ValueError(f"`weights` should hold one above 0 where `kind` is weighted. Found {self.weights}.")
        if self.kind != "weighted" and self.weights is not None:
            raise ValueError(f"`weights` should be left out where `kind` is {self.kind}. Found {self.weights}.")
        return self


class Transformations(Section):
    """Expectation over transformations: the surrogates see random views, the same ones for every model."""

    samples: Count = 2
    """0: none."""
    every: Positive = 2
    """Iterations; the others see the picture as it is."""
    rotation: Annotated[Weight, Field(le=180)] = 10.0
    """Degrees, either way."""
    scale: Annotated[list[Rate], Field(min_length=2, max_length=2)] = [0.9, 1.1]
    hue: Annotated[Weight, Field(le=0.5)] = 0.05
    """Of the colour circle, either way."""
    noise: Weight = 0.0

    @model_validator(mode="after")
    def _scale_rises(self) -> Self:
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"`scale` should be two numbers, the smaller one first. Found {self.scale}.")
        return self


class PerturbationStep(Section):
    """How the latent moves."""

    kind: Literal["adamw", "momentum"] = "adamw"
    rate: Rate = 0.04
    decay: Annotated[Real, Field(ge=0, lt=1)] = 0.9
    clip: Rate = 1.0
    """Norm of an image's momentum at most."""


class Budget(Section):
    """How far a perturbation may go, and which of its iterates is kept.

    Attributes:
        keep: `best`: the iterate that fools the surrogate it fools least by the largest margin; of equal margins the
            nearest by perceptual distance. As an image is left alone at its first iterate that has ``stop_margin``,
            that one is kept where there is one. `last`: the last one, as published.
        radius: of the latent's change, in the latent's standard deviations per entry (root mean square); null:
            unbounded.
        perceptual: an iterate beyond this perceptual distance is kept only where none is within, and then the nearest;
            null: there is no such bound. `best` alone knows it.
        stop_margin: an image is left alone once every surrogate is fooled by so much in logits, within ``perceptual``;
            null: never.
    """

    iterations: Positive = 30
    keep: Literal["best", "last"] = "best"
    radius: Rate | None = None
    perceptual: Rate | None = None
    stop_margin: Weight | None = 5.0

    @model_validator(mode="after")
    def _the_last_is_kept_wherever_it_is(self) -> Self:
        if self.keep == "last" and self.perceptual is not None:
            raise ValueError(f"`perceptual` should be null where `keep` is last. Found {self.perceptual}.")
        return self
