"""The models that settings name: bundled, trained here, exported, of other libraries, handed over."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffaudit.settings.base import Positive, Section


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


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""What reports and files call a model."""

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
    """Light alone, as coarse luminance, without a network: for photographs that no trained estimator fits."""

    kind: Literal["low_pass"] = "low_pass"


class HarmonicLight(Section):
    """Light alone, as spherical harmonics of a head taken for a sphere: it tells directions, and looks inside alone."""

    kind: Literal["harmonics"] = "harmonics"


AttributeModel = Annotated[BundledModel | TrainedModel | LowPassLight | HarmonicLight, Field(discriminator="kind")]
