"""What a run was asked: one YAML file, checked whole before any work. Torch is not needed to read it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from diffaudit._faults import faults
from diffaudit._yaml import parse_yaml
from diffaudit.errors import DiffauditError


def _no_boolean(value: Any) -> Any:
    # YAML reads `yes` and `on` as true, which pydantic would take for the number 1.
    if isinstance(value, bool):
        raise PydanticCustomError("boolean", "Input should be a number")
    return value


Integer = Annotated[int, BeforeValidator(_no_boolean)]
Seed = Annotated[Integer, Field(ge=0, lt=2**32)]
Count = Annotated[Integer, Field(ge=0)]
Positive = Annotated[Integer, Field(ge=1)]
Real = Annotated[float, BeforeValidator(_no_boolean)]
Share = Annotated[Real, Field(gt=0, le=1)]
Weight = Annotated[Real, Field(ge=0)]
Rate = Annotated[Real, Field(gt=0)]
FolderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]

Group = Literal["prior", "cls", "id", "perc", "reg"]
GROUPS: tuple[Group, ...] = ("prior", "cls", "id", "perc", "reg")
"""The groups of terms that weights are given for."""


class Section(BaseModel):
    """A part of the settings: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


# Models ---------------------------------------------------------------------------------------------------------------


class BundledModel(Section):
    """A model that comes with diffaudit, by name."""

    kind: Literal["bundled"] = "bundled"
    name: str


class TrainedModel(Section):
    """A folder that `diffaudit train` wrote: weights and a card."""

    kind: Literal["trained"] = "trained"
    folder: Path


class ExportedModel(Section):
    """A ``torch.export`` program (``.pt2``): images in [0, 1] to one tensor."""

    kind: Literal["pt2"] = "pt2"
    path: Path
    size: Positive
    allow_code: bool = False


class TimmModel(Section):
    """A model of the timm library, with a checkpoint of yours or its published weights."""

    kind: Literal["timm"] = "timm"
    name: str
    weights: Path | None = None
    num_classes: Positive | None = None


class TorchvisionModel(Section):
    """A classifier of torchvision, with a checkpoint of yours or its default published weights."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    weights: Path | None = None
    num_classes: Positive | None = None
    size: Positive = 224


class GivenModel(Section):
    """A Python object handed to :func:`diffaudit.invert`; its name and size are for the record."""

    kind: Literal["given"] = "given"
    name: str = "given"
    size: Positive | None = None


ClassifierModel = Annotated[
    BundledModel | TrainedModel | ExportedModel | TimmModel | TorchvisionModel | GivenModel, Field(discriminator="kind")
]
NetworkModel = Annotated[BundledModel | TrainedModel | ExportedModel, Field(discriminator="kind")]


class PriorModel(Section):
    """A diffusion prior: bundled, a folder of diffusers' layout, or a hub id."""

    kind: Literal["bundled", "diffusers"] = "bundled"
    location: str = "prior"
    prompt: str = ""


class LowPassLight(Section):
    """No trained estimator fits the pictures: attribute errors are left out."""

    kind: Literal["low_pass"] = "low_pass"


AttributeModel = Annotated[BundledModel | TrainedModel | LowPassLight, Field(discriminator="kind")]


# Pictures -------------------------------------------------------------------------------------------------------------


class ProceduralFaces(Section):
    """The embedded benchmark's faces, rendered when needed."""

    kind: Literal["faces"] = "faces"
    identities: Annotated[Integer, Field(ge=2)] = 4000
    per_identity: Positive = 1
    seed: Seed = 0


class PictureFolders(Section):
    """Image folders with a sub-folder a person; of each person a part, where halves are asked for."""

    kind: Literal["folders"] = "folders"
    folders: Annotated[list[Path], Field(min_length=1)]
    size: Positive = 64
    include: list[str] | None = None
    exclude: list[str] = []
    half: Literal["training", "reference"] | None = None
    seed: Seed = 0


Pictures = Annotated[ProceduralFaces | PictureFolders, Field(discriminator="kind")]


# The attack -----------------------------------------------------------------------------------------------------------


class Attack(Section):
    """All that the attacker has (the threat model's white box, public pictures and models of public data)."""

    target: ClassifierModel = BundledModel(name="target")
    prior: PriorModel = PriorModel()
    encoder: NetworkModel = BundledModel(name="identity")
    attributes: AttributeModel = BundledModel(name="attributes")
    perceptual: NetworkModel = BundledModel(name="attributes")
    public: Pictures = ProceduralFaces(identities=4000, per_identity=1, seed=0)


class LabelEmbedding(Section):
    """How a class index becomes an identity embedding."""

    kind: Literal["table", "mlp", "manifold"] = "manifold"
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
    guidance_scale: Annotated[Real, Field(ge=1)] = 4.5

    @model_validator(mode="after")
    def _no_more_gradient_than_steps(self) -> Self:
        if self.gradient_steps > self.steps:
            raise ValueError(f"`gradient_steps` should be at most `steps` ({self.steps}). Found {self.gradient_steps}.")
        return self


class Terms(Section):
    """What each term is, in the baseline's forms; factors weigh terms inside their group."""

    feature_factor: Weight = 0.5
    k: Positive = 1
    identity_anchor: Literal["learned", "pseudo"] = "learned"
    lora_weight: Weight = 1e-4


class Stage(Section):
    """One stage of training: what moves, for how long, under which weights."""

    name: str
    trains: Annotated[list[Literal["embedding", "lora", "projector"]], Field(min_length=1)]
    steps: Count
    rate: Rate
    embedding_factor: Weight = 0.1
    weights: dict[Group, Weight]
    batch: Positive = 16


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


class Optimiser(Section):
    """AdamW with warm-up and cosine decay in each stage."""

    warmup: Count = 10
    clip: Rate = 1.0
    weight_decay: Weight = 0.0


class Sampling(Section):
    """How reconstructions are drawn from the trained generator and which are kept."""

    steps: Positive = 10
    strength: Share = 0.9
    guidance_scale: Annotated[Real, Field(ge=1)] = 4.5
    candidates: Positive = 8
    keep: Positive = 4
    views: Positive = 4
    batch: Positive = 32

    @model_validator(mode="after")
    def _keep_no_more_than_drawn(self) -> Self:
        if self.keep > self.candidates:
            raise ValueError(f"`keep` should be at most `candidates` ({self.candidates}). Found {self.keep}.")
        return self


# The judges -----------------------------------------------------------------------------------------------------------


class PrivateFaces(Section):
    """Held-out photographs of the embedded benchmark's private identities."""

    kind: Literal["faces"] = "faces"
    per_identity: Annotated[Integer, Field(ge=2)] = 8
    seed: Seed = 7


PrivatePictures = Annotated[PrivateFaces | PictureFolders, Field(discriminator="kind")]


class NearestMean(Section):
    """A judge made of a recogniser and private photographs other than those judged: the nearest mean embedding wins."""

    kind: Literal["nearest_mean"] = "nearest_mean"
    encoder: NetworkModel
    pictures: PictureFolders


JudgeModel = Annotated[
    BundledModel | TrainedModel | ExportedModel | TimmModel | TorchvisionModel | GivenModel | NearestMean,
    Field(discriminator="kind"),
]


class Judging(Section):
    """All that only scoring may open: judges, the judges' identity encoder, private pictures."""

    classifiers: Annotated[dict[str, JudgeModel], Field(min_length=1)] = {
        "plain": BundledModel(name="judge-plain"),
        "depthwise": BundledModel(name="judge-depthwise"),
    }
    encoder: NetworkModel = BundledModel(name="judge-identity")
    factors: NetworkModel | None = BundledModel(name="judge-factors")
    private: PrivatePictures = PrivateFaces()


def _classes_in_one_rule(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """Three faults of a union, one for each of its members, said as one."""
    try:
        checked = check(value)
    except ValidationError as error:
        raise PydanticCustomError(
            "classes", "Input should be 'all', a number of classes from 1, or a list of class indices from 0"
        ) from error
    if isinstance(checked, list) and len(set(checked)) < len(checked):
        raise PydanticCustomError("classes", "Input should name each class once")
    return checked


Classes = Annotated[
    Literal["all"] | Positive | Annotated[list[Count], Field(min_length=1)],
    WrapValidator(_classes_in_one_rule),
]


class InversionSettings(Section):
    """A whole inversion run."""

    audit: Literal["inversion"] = "inversion"
    name: FolderName = "quick"
    seed: Seed = 0
    device: str = "cpu"
    threads: Positive | None = None
    classes: Classes = "all"
    attack: Attack = Attack()
    embedding: LabelEmbedding = LabelEmbedding()
    image: TrainingImage = TrainingImage()
    terms: Terms = Terms()
    weighting: Annotated[FixedWeights | StagedWeights, Field(discriminator="kind")] = StagedWeights()
    lora: Lora = Lora()
    stages: Annotated[list[Stage], Field(min_length=1)] = [
        Stage(
            name="embed",
            trains=["embedding"],
            steps=500,
            rate=1e-2,
            weights={"prior": 0.3, "cls": 1.0, "id": 1.0, "perc": 0.5, "reg": 0.01},
        ),
        Stage(
            name="adapt",
            trains=["lora", "embedding"],
            steps=1000,
            rate=5e-5,
            weights={"prior": 1.5, "cls": 1.0, "id": 0.8, "perc": 1.0, "reg": 0.01},
        ),
    ]
    optimiser: Optimiser = Optimiser()
    sampling: Sampling = Sampling()
    judging: Judging = Judging()
    checkpoint_every: Positive = 50
    reference_rows: bool = True

    @model_validator(mode="after")
    def _stage_names_differ(self) -> Self:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"`stages` should have names of their own. Found {names}.")
        return self


class SettingsError(DiffauditError, ValueError):
    """Every fault of a settings file, a line each: key, rule, value found."""

    def __init__(self, source: str, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        lines = "\n".join(f"  {fault}" for fault in faults)
        super().__init__(f"{source}: {len(faults)} fault{'s' if len(faults) != 1 else ''}\n{lines}")


def load_settings(path: Path | None, overrides: Mapping[str, Any] | None = None) -> InversionSettings:
    """Reads a YAML file (None: the defaults), lays ``overrides`` (dotted keys) over it and checks the result.

    Raises:
        SettingsError: the file is missing, is no YAML mapping, or breaks rules; all faults at once.
    """
    source = "settings" if path is None else str(path)
    try:
        values = {} if path is None else parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(source, [f"the file should be readable. Found: {error.strerror}."]) from error
    except UnicodeDecodeError as error:
        raise SettingsError(source, ["the file should be text in UTF-8. Found other bytes."]) from error
    except ValueError as error:
        raise SettingsError(source, [f"the file should be YAML. Found: {error}."]) from error
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise SettingsError(source, [f"the file should be a mapping of keys. Found a {type(values).__name__}."])
    unplaced = []
    for key, value in (overrides or {}).items():
        if key.startswith("stages.") and "stages" not in values:
            values["stages"] = InversionSettings().model_dump(mode="json")["stages"]
        try:
            values = _lay_over(values, key.split("."), value)
        except LookupError as error:
            unplaced.append(f"`{key}` should lead to a setting. Found {error.args[0]}.")
    if unplaced:
        raise SettingsError(source, unplaced + _faults_of(values))
    return check_settings(values, source)


def check_settings(values: Mapping[str, Any], source: str = "settings") -> InversionSettings:
    """Checks a mapping; raises :class:`SettingsError` with every fault."""
    try:
        return InversionSettings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(source, faults(error, values)) from error


def dump_settings(settings: InversionSettings) -> str:
    """The resolved settings as YAML, complete: reading it back gives equal settings."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def _faults_of(values: Mapping[str, Any]) -> list[str]:
    try:
        check_settings(values)
    except SettingsError as error:
        return error.faults
    return []


def _lay_over(node: Any, keys: Sequence[str], value: Any) -> Any:
    """``node`` with ``value`` at the end of ``keys``; what lies on the way is copied, as YAML aliases may share it."""
    if not keys:
        return value
    first, *rest = keys
    if isinstance(node, dict):
        below = node.get(first)
        return {**node, first: _lay_over({} if below is None else below, rest, value)}
    if not isinstance(node, list):
        raise LookupError(f"no keys where `{first}` is looked for")
    if not first.isdecimal() or int(first) >= len(node):
        raise LookupError(f"a list of {len(node)} where item `{first}` is looked for")
    place = int(first)
    return [*node[:place], _lay_over(node[place], rest, value), *node[place + 1 :]]
