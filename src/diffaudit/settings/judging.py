"""The judges' side of the settings: what only scoring may open."""

from typing import Annotated, Literal

from pydantic import Field

from diffaudit.settings.base import Section
from diffaudit.settings.models import (
    BundledModel,
    EfficientNetLite,
    ExportedModel,
    NetworkModel,
    OwnNetwork,
    TimmModel,
    TorchvisionModel,
    TrainedModel,
)
from diffaudit.settings.pictures import PictureFolders, PrivateFaces, PrivatePictures


class NearestMean(Section):
    """A judge made of a recogniser and private photographs other than those judged: the nearest mean embedding wins."""

    kind: Literal["nearest_mean"] = "nearest_mean"
    encoder: NetworkModel
    pictures: PictureFolders


JudgeModel = Annotated[
    BundledModel | TrainedModel | ExportedModel | TimmModel | TorchvisionModel | EfficientNetLite | NearestMean,
    Field(discriminator="kind"),
]
"""None of them a Python object: only the target is handed over."""


class Judging(Section):
    """All that only scoring may open: judges, the judges' identity encoder, private pictures."""

    classifiers: Annotated[dict[str, JudgeModel], Field(min_length=1)] = {
        "plain": BundledModel(name="judge-plain"),
        "depthwise": BundledModel(name="judge-depthwise"),
    }
    encoder: NetworkModel = BundledModel(name="judge-identity")
    factors: OwnNetwork | None = BundledModel(name="judge-factors")
    private: PrivatePictures = PrivateFaces()
