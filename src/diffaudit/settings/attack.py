"""The attack's side of the settings: what the attacker has, what it trains and under which losses, how it draws."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit.settings.base import Count, Integer, Positive, Rate, Real, Section, Share, Weight
from diffaudit.settings.models import AttributeModel, BundledModel, ClassifierModel, IdentityPrior, NetworkModel
from diffaudit.settings.pictures import Pictures, ProceduralFaces
from diffaudit.settings.terms import Group


class Attack(Section):
    """All that the attacker has (the threat model's white box, public pictures and models of public data)."""

    target: ClassifierModel = BundledModel(name="target")
    prior: IdentityPrior = IdentityPrior()
    encoder: NetworkModel = BundledModel(name="identity")
    attributes: AttributeModel = BundledModel(name="attributes")
    perceptual: NetworkModel = BundledModel(name="attributes")
    public: Pictures = ProceduralFaces(identities=4000, per_identity=1, seed=0)


class LabelEmbedding(Section):
    """What a class index becomes: an identity embedding or, under textual inversion, words."""

    kind: Literal["table", "mlp", "manifold", "textual_inversion"] = "manifold"
    """`textual_inversion` seeks no identity but word vectors, in the place `{label}` of `attack.prior.prompt`."""
    words: Annotated[str, Field(min_length=1)] = "person"
    """Where textual inversion begins: each token is a vector that is sought."""
    hidden: Positive = 256
    layers: Annotated[Integer, Field(ge=2, le=3)] = 2
    explained_variance: Share = 0.99
    anchor_images: Positive = 16


class TrainingImage(Section):
    """How the image is made that a training step looks at."""

    mode: Literal["one_step", "rollout"] = "rollout"
    steps: Positive = 4
    gradient_steps: Positive = 2
    strength: Share = 0.9
    guidance_scale: Annotated[Real, Field(ge=1)] = 3.0
    per_class: Positive | None = None
    """Pictures of a class in a batch; null: two where a term compares the pictures of a class, else one. With two, a
    batch holds half as many classes."""
    random_view: bool = False
    """Whether the target is shown the picture mirrored, moved and lit at random: what fools it at one spot alone does
    not count."""

    @model_validator(mode="after")
    def _no_more_gradient_than_steps(self) -> Self:
        if self.gradient_steps > self.steps:
            raise ValueError(f"`gradient_steps` should be at most `steps` ({self.steps}). Found {self.gradient_steps}.")
        return self


class Stage(Section):
    """One stage of training: what moves, for how long, under which weights."""

    name: str
    trains: Annotated[list[Literal["embedding", "lora", "projector"]], Field(min_length=1)]
    steps: Count
    rate: Rate
    embedding_factor: Weight = 0.1
    weights: dict[Group, Weight]
    batch: Positive = 16
    condition: Literal["label", "image", "hybrid"] = "label"
    """Whose identity the pictures are made under: the label's, their source's own, or from the one to the other."""

    @model_validator(mode="after")
    def _trains_each_once(self) -> Self:
        if len(set(self.trains)) < len(self.trains):
            raise ValueError(f"`trains` should name each part once. Found {', '.join(self.trains)}.")
        return self

    @model_validator(mode="after")
    def _shows_what_it_trains(self) -> Self:
        if self.steps > 0 and set(self.trains) == {"embedding"} and self.condition == "image":
            raise ValueError(
                "`condition` should be 'label' or 'hybrid' where a stage trains `embedding` alone: no picture would "
                "show what is trained. Found 'image'."
            )
        return self


class Lora(Section):
    """Low-rank adapters on the UNet's attention projections and 1 x 1 convolutions."""

    rank: Positive = 16
    alpha: Positive = 32


class FixedWeights(Section):
    """The same weights in every stage, whatever the stages say."""

    kind: Literal["fixed"] = "fixed"
    weights: dict[Group, Weight] = {
        "prior": 1.2,
        "cls": 1.0,
        "id": 0.8,
        "perc": 0.5,
        "reg": 0.2,
    }


class StagedWeights(Section):
    """Each stage's own weights, handed over during the first steps of the next stage."""

    kind: Literal["staged"] = "staged"
    handover: Count = 0
    shape: Literal["linear", "cosine"] = "cosine"


class UncertaintyWeights(Section):
    """Weights of groups learned by uncertainty; ``fixed`` ones stay outside the learned sum.

    The stages' own weights are ignored. A group without terms, or fixed at 0, is left out.
    """

    kind: Literal["uncertainty"] = "uncertainty"
    rate: Rate | None = None
    """At which log sigma^2 learns; null: a tenth of the stage's. A stage of N steps moves it by about half of N times
    that, and the way from a weight of 1/2 to 1/10 is 1.6: short stages need a rate of their own."""
    initial: dict[Group, Rate] = {}
    fixed: dict[Group, Weight] = {"reg": 0.01}
    delta: Weight = 0.05


class AggregatedWeights(Section):
    """Gradients of groups combined by TorchJD, each stage's weights as preferences."""

    kind: Literal["aggregated"] = "aggregated"
    aggregator: Literal["upgrad", "dualproj", "mgda", "imtl_g", "aligned_mtl"] = "upgrad"
    handover: Count = 0
    shape: Literal["linear", "cosine"] = "cosine"


AnyWeights = Annotated[
    FixedWeights | StagedWeights | UncertaintyWeights | AggregatedWeights, Field(discriminator="kind")
]


class Optimiser(Section):
    """AdamW with warm-up and cosine decay in each stage."""

    warmup: Count = 10
    clip: Rate = 1.0
    weight_decay: Weight = 0.0


class Finishing(Section):
    """Gradient steps on finished pixels, judged as a row of their own: adversarial examples, not reconstructions."""

    steps: Count = 0
    """0: none, and no such row."""
    rate: Rate = 0.01


class Sampling(Section):
    """How reconstructions are drawn from the trained generator and which are kept."""

    steps: Positive = 10
    strength: Share = 0.9
    guidance_scale: Annotated[Real, Field(ge=1)] = 3.0
    classifier_guidance: Weight = 0.0
    """By which share of the noise the target turns it at most; 0: not at all."""
    classifier_guidance_every: Positive = 2
    sources: Literal["random", "spread"] = "random"
    """`spread`: public pictures far apart in pose, expression and light."""
    candidates: Positive = 8
    keep: Positive = 4
    views: Positive = 4
    batch: Positive = 32
    finishing: Finishing = Finishing()

    @model_validator(mode="after")
    def _keep_no_more_than_drawn(self) -> Self:
        if self.keep > self.candidates:
            raise ValueError(f"`keep` should be at most `candidates` ({self.candidates}). Found {self.keep}.")
        return self
