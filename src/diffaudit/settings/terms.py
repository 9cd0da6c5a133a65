"""The losses' side of the settings: which terms each group holds, and in which form."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit.settings.base import Count, Positive, Rate, Real, Section, Weight

Group = Literal["prior", "cls", "id", "perc", "reg"]
GROUPS: tuple[Group, ...] = ("prior", "cls", "id", "perc", "reg")
"""The groups of terms that weights are given for."""

Attribute = Literal["pose", "expression", "illumination"]


class TermSection(Section):
    """What every term has: its factor inside its group, and what its values are divided by first."""

    factor: Rate = 1.0
    scale: Literal["none", "first", "ema"] = "none"
    """`first`: its mean size over its first 10 steps; `ema`: a moving average of it."""


class NoiseTerm(TermSection):
    """Does the trained generator still predict the noise of real pictures?"""

    kind: Literal["noise"] = "noise"
    distance: Literal["mse", "cosine", "hybrid"] = "mse"
    schedule: Literal["constant", "step", "linear", "cosine"] = "constant"


class TopKTerm(TermSection):
    """The target's logits: the class sought against the mean of its ``k`` strongest rivals."""

    kind: Literal["top_k"] = "top_k"
    k: Positive | None = 1
    """Null: adapted to the number of classes."""
    k_min: Annotated[Positive, Field(le=5)] = 2
    """The least that adapts; texts that say one rival for ten classes want 1."""
    bounded: bool = False
    """Whether its softplus is taken, which is at least 0."""
    margin: Weight = 0.0
    """Logits by which the class sought leads before the softplus fades; the unbounded form never does."""

    @model_validator(mode="after")
    def _a_margin_is_of_the_bounded_form(self) -> Self:
        if self.margin > 0 and not self.bounded:
            raise ValueError(f"`margin` should be 0 where `bounded` is false: it has no effect. Found {self.margin}.")
        return self


class FeatureTerm(TermSection):
    """The target's penultimate features against the centre of the class, which stays or learns."""

    kind: Literal["feature"] = "feature"
    factor: Rate = 0.5
    centres: Literal["pseudo", "learned", "fixed"] = "pseudo"
    """`pseudo`: mean features of the public pictures that the target takes for the class; `learned`: they begin there;
    `fixed`: the class's row of the target's last layer, as long as those means are on average."""


class LogitMarginTerm(TermSection):
    """A hinge on the lead of the class sought over its strongest rival."""

    kind: Literal["logit_margin"] = "logit_margin"
    factor: Rate = 0.3
    margin: Weight = 1.0


class AngularMarginTerm(TermSection):
    """A hinge on angles, for a target whose logits are ``logit_scale`` times cosines.

    The scale is to be given: ordinary logits over a large number look like cosines, and are none.
    """

    kind: Literal["angular_margin"] = "angular_margin"
    factor: Rate = 0.3
    margin: Weight = 0.5
    logit_scale: Rate


class IdentityTerm(TermSection):
    """The identity encoder's view of the picture against the anchor."""

    kind: Literal["identity"] = "identity"


class ContrastiveTerm(TermSection):
    """The same, with negatives of other people from the bank: by the nearest (`hard`) or by several (`smooth`)."""

    kind: Literal["contrastive"] = "contrastive"
    form: Literal["hard", "smooth"] = "smooth"
    margin: Annotated[Real, Field(ge=0, le=2)] = 0.4
    sharpness: Rate = 64.0
    """Of the smooth maximum."""


class PerceptualTerm(TermSection):
    """Feature maps of the picture against those of its source; `hierarchical` weighs depths."""

    kind: Literal["perceptual"] = "perceptual"
    form: Literal["plain", "hierarchical"] = "plain"


class AttributeTerm(TermSection):
    """Pose, expression and light of the picture against those of its source."""

    kind: Literal["attributes"] = "attributes"
    distance: Literal["l1", "l2"] = "l1"
    weights: Annotated[dict[Attribute, Weight], Field(min_length=1)] | None = None
    """Null: 0.3 for pose and expression, 0.2 for illumination, of these what the attacker's estimator reads."""


class DiversityTerm(TermSection):
    """How alike the embeddings of one class are within a batch."""

    kind: Literal["diversity"] = "diversity"


class RegulariserTerm(TermSection):
    """The length of label embeddings, and of the adapters."""

    kind: Literal["regulariser"] = "regulariser"
    lora_weight: Weight = 1e-4


ClassifierTerm = Annotated[TopKTerm | FeatureTerm | LogitMarginTerm | AngularMarginTerm, Field(discriminator="kind")]
AnyIdentityTerm = Annotated[IdentityTerm | ContrastiveTerm, Field(discriminator="kind")]
SourceTerm = Annotated[PerceptualTerm | AttributeTerm | DiversityTerm, Field(discriminator="kind")]


class Bank(Section):
    """Negatives for `contrastive`: snapshots of the label embeddings, and public pictures by pseudo-label."""

    capacity: Count = 4096
    """How many public pictures are remembered; 0 for snapshots alone."""
    per_image: Positive = 64
    interval: Positive | None = 50
    """Steps between snapshots; null for public pictures alone."""

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if self.capacity == 0 and self.interval is None:
            rule = "be above 0 where `interval` is null: the bank would stay empty"
            raise ValueError(f"`capacity` should {rule}. Found 0.")
        return self


class Terms(Section):
    """The terms of every group, one of a kind; the defaults are the baseline's."""

    identity_anchor: Literal["learned", "pseudo"] = "learned"
    prior: Annotated[list[NoiseTerm], Field(max_length=1)] = [NoiseTerm()]
    cls: list[ClassifierTerm] = [TopKTerm(), FeatureTerm()]
    id: list[AnyIdentityTerm] = [IdentityTerm()]
    perc: list[SourceTerm] = [PerceptualTerm()]
    reg: Annotated[list[RegulariserTerm], Field(max_length=1)] = [RegulariserTerm()]
    bank: Bank = Bank()

    @model_validator(mode="after")
    def _one_of_a_kind(self) -> Self:
        for group in GROUPS:
            kinds = [term.kind for term in getattr(self, group)]
            if len(set(kinds)) < len(kinds):
                raise ValueError(f"`{group}` should hold one term of a kind. Found {', '.join(kinds)}.")
        return self
