"""The judges' side of a perturbation: models never attacked, defences, reference attacks."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit.settings.base import Positive, Section, Share
from diffaudit.settings.models import BundledModel, ClassifierModel, ModelName, NetworkModel


class JpegDefence(Section):
    """Compression before the model."""

    kind: Literal["jpeg"] = "jpeg"
    quality: Annotated[int, Field(ge=1, le=95)] = 75


class BitDepthDefence(Section):
    """Fewer bits a channel before the model."""

    kind: Literal["bit_depth"] = "bit_depth"
    bits: Annotated[int, Field(ge=1, le=8)] = 4


class ResizePadDefence(Section):
    """Random resizing and padding before the model, evaluated repeatedly."""

    kind: Literal["resize_pad"] = "resize_pad"
    least: Share = 0.85
    repeats: Positive = 5


class PurificationDefence(Section):
    """Noise and the prior's own denoising before the model, evaluated repeatedly."""

    kind: Literal["purification"] = "purification"
    strength: Share = 0.2
    steps: Positive = 4
    repeats: Positive = 2


AnyDefence = Annotated[
    JpegDefence | BitDepthDefence | ResizePadDefence | PurificationDefence, Field(discriminator="kind")
]


class ReferenceAttack(Section):
    """An attack on pixels from a maintained library, on the same surrogates (the extra `pixel`)."""

    method: Literal["pgd", "mi-fgsm"]
    budget: Annotated[Positive, Field(le=255)]
    """Of every value, in 1/255."""


class PerturbationJudging(Section):
    """All that only scoring opens.

    Attributes:
        heldout: models that the attack never saw, of other architectures: transfer.
        siblings: near relatives of a surrogate, in a column of their own.
        references: attacks on pixels, each a row to read the attack against.
        rebuilt: whether what DDIM inversion and decoding alone give is judged too: the damage that no perturbation did.
        perceptual: the network of the perceptual distance that is reported; another than the attack's own, by which
            iterates are chosen and bounded, for a ruler that was optimised flatters who optimised it.
        encoder: an identity encoder, in whose space the images are held as a set against the clean pictures; null:
            they are not.
    """

    heldout: dict[ModelName, ClassifierModel] = {
        "depthwise": BundledModel(name="hair-depthwise"),
        "mixer": BundledModel(name="hair-mixer"),
    }
    siblings: dict[ModelName, ClassifierModel] = {}
    defences: list[AnyDefence] = [JpegDefence(), BitDepthDefence(), ResizePadDefence(), PurificationDefence()]
    references: list[ReferenceAttack] = []
    rebuilt: bool = True
    perceptual: NetworkModel = BundledModel(name="judge-factors")
    encoder: NetworkModel | None = BundledModel(name="judge-identity")

    @model_validator(mode="after")
    def _each_reference_once(self) -> Self:
        asked = [(reference.method, reference.budget) for reference in self.references]
        twice = sorted({f"{method} {budget}" for method, budget in asked if asked.count((method, budget)) > 1})
        if twice:
            raise ValueError(f"`references` should hold each attack once. Found {', '.join(twice)} twice.")
        return self
