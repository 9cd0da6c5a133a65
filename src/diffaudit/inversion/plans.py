"""What a training is asked to do: how its images are made, what each stage trains, for how long, how fast."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ImagePlan:
    """How a training image is made: in ``one_step`` from a random time step, or by a ``rollout`` of the sampler."""

    mode: Literal["one_step", "rollout"]
    steps: int
    gradient_steps: int
    strength: float
    guidance_scale: float
    per_class: int | None = None
    """Pictures of a class in a batch; None: two where a term compares the pictures of a class, else one."""
    random_view: bool = False
    """Whether the target sees the picture mirrored, moved and lit at random, as selection does, or as it is."""


ATTACK_GROUPS = ("cls", "id")
"""The groups of terms that seek the class."""


@dataclass(frozen=True)
class StagePlan:
    """One stage: ``trains`` names parameter groups (`embedding`, `lora`, `projector`), rates are per group."""

    name: str
    trains: tuple[str, ...]
    steps: int
    rates: dict[str, float]
    batch: int
    first_step: int
    warmup: int
    clip: float
    weight_decay: float
    condition: Literal["label", "image", "hybrid"] = "label"
    """Whose identity the picture is made under: the label's, its source's own, or from the one to the other."""

    def label_share(self, step: int) -> float:
        r"""Share :math:`a` of the label embedding in the condition at ``step``: 1, 0, or :math:`(1 - \cos(\pi n/N))/2`.

        >>> plan = StagePlan("s", ("lora",), 10, {"lora": 1.0}, 4, 0, 0, 1.0, 0.0, condition="hybrid")
        >>> plan.label_share(0), round(plan.label_share(5), 3)
        (0.0, 0.5)
        """
        match self.condition:
            case "label":
                return 1.0
            case "image":
                return 0.0
            case "hybrid":
                return 0.5 * (1 - math.cos(math.pi * step / self.steps))

    def attack_shares(self, step: int) -> dict[str, float]:
        """By how much the terms that seek the class count at ``step`` of a hybrid stage, by group; else empty.

        As much as the label has its part in the condition: a picture under its source's own identity that had to
        please the classifier would teach the generator to draw the class whatever it is asked for.
        """
        return dict.fromkeys(ATTACK_GROUPS, self.label_share(step)) if self.condition == "hybrid" else {}

    def rate_factor(self, step: int) -> float:
        """Share of the full rate at ``step``: linear warm-up, cosine decay to zero."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


@dataclass(frozen=True)
class SamplePlan:
    """How reconstructions are drawn and which are kept; ``classifier_guidance`` 0 leaves the sampler to itself."""

    steps: int
    strength: float
    guidance_scale: float
    candidates: int
    keep: int
    views: int
    batch: int
    classifier_guidance: float = 0.0
    classifier_guidance_every: int = 2
    sources: Literal["random", "spread"] = "random"
