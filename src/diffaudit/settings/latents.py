"""The latent's side of a perturbation: the way to the latent and back, the words, what is recorded, where it acts."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit.settings.base import Count, Positive, Rate, Real, Section, Share, Weight
from diffaudit.settings.models import BundledModel, NetworkModel


class NullText(Section):
    """Null conditions optimised step by step, so that guidance returns to the picture."""

    inner_steps: Positive = 10
    """Of the first time step; each later one gets two more."""
    rate: Rate = 0.1


class LatentPath(Section):
    """DDIM inversion of ``steps`` steps; those from ``start`` on are denoised again, with the perturbation in them."""

    steps: Positive = 20
    start: Count = 15
    guidance_scale: Annotated[Real, Field(ge=1)] = 1.0
    null_text: NullText | None = None
    """For guidance above 1 alone."""
    residual: bool = True
    """Whether what inversion and autoencoder lose of a picture is added back to all that is rendered from it."""

    @model_validator(mode="after")
    def _something_is_denoised(self) -> Self:
        if self.start >= self.steps:
            raise ValueError(f"`start` should be below `steps` ({self.steps}). Found {self.start}.")
        if self.null_text is not None and self.guidance_scale == 1:
            raise ValueError("`null_text` should be left out at guidance 1, which has no null condition. Found one.")
        return self


class Prompts(Section):
    """The words under which the prior sees a picture."""

    template: str = "a portrait of a person with {label}"
    identity: NetworkModel | None = BundledModel(name="identity")
    """The encoder whose embedding of each picture is a condition too; null for a prior that knows words alone."""
    distractor: Literal["none", "text", "confusion"] = "confusion"
    """The rival class of each picture: nearest by the text encoder, or the surrogates' second choice."""
    name_rival: Literal["where_read", "always"] = "where_read"
    """Prompts name the label alone, and the rival beside it where a term, the goal or the loss reads it, or always. A
    template with ``{distractor}`` always names it."""

    @model_validator(mode="after")
    def _label_has_a_place(self) -> Self:
        if "{label}" not in self.template:
            raise ValueError(f"`template` should have the place of the label, {{label}}. Found {self.template!r}.")
        if self.distractor == "none" and self.name_rival == "always":
            raise ValueError("`name_rival` should be where_read where `distractor` is none. Found 'always'.")
        if self.distractor == "none" and "{distractor}" in self.template:
            raise ValueError(f"`template` should have no {{distractor}} where none is chosen. Found {self.template!r}.")
        return self


class Attention(Section):
    """At which steps attention is recorded, and which heads of cross-attention are read; terms name their layers."""

    window: Annotated[list[Annotated[Real, Field(ge=0, le=1)]], Field(min_length=2, max_length=2)] = [0.5, 0.9]
    """Of the progress from noise to picture."""
    keep_heads: Share = 0.9
    """Share of the heads that each iteration reads, drawn at random; 1: all."""
    head_weights: Annotated[list[Rate], Field(min_length=1)] | None = None
    """What each head counts; null: once each."""

    @model_validator(mode="after")
    def _window_rises(self) -> Self:
        if self.window[0] > self.window[1]:
            raise ValueError(f"`window` should be two numbers, the smaller one first. Found {self.window}.")
        return self


Level = Annotated[int, Field(ge=0)]
"""As a key of a mapping, which in JSON is text."""


class Layers(Section):
    """Which attention layers are read, and how much each one on the way down, in the middle and on the way up counts.

    Attributes:
        levels: only those where the latent's side is halved so often: a list of them, or how much each one counts
            beside its place, as ``{0: 2.0, 1: 1.0}`` for a grid that counts twice as much as the next coarser one;
            null: all, once each.
    """

    down: Weight = 0.0
    mid: Weight = 1.0
    up: Weight = 1.0
    levels: Annotated[list[Count], Field(min_length=1)] | Annotated[dict[Level, Weight], Field(min_length=1)] | None = (
        None
    )

    @model_validator(mode="after")
    def _something_is_read(self) -> Self:
        if not self.down + self.mid + self.up:
            raise ValueError("one of `down`, `mid` and `up` should be above 0. Found 0 for each.")
        if isinstance(self.levels, dict) and not any(self.levels.values()):
            raise ValueError(f"one of `levels` should be above 0. Found {self.levels}.")
        return self


class Mask(Section):
    """Where the perturbation acts: everywhere, where the label is attended to, or where Grad-CAM sees the class."""

    kind: Literal["none", "attention", "grad_cam"] = "none"
    threshold: Share | None = None
    """Null: soft."""
    layers: Layers = Layers()
    """Whose attention is the mask, where it is."""

    @model_validator(mode="after")
    def _there_is_something_to_cut(self) -> Self:
        if self.kind == "none" and self.threshold is not None:
            raise ValueError(f"`threshold` should be null where `kind` is none. Found {self.threshold}.")
        return self
