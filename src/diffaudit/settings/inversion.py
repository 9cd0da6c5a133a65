"""A whole inversion run."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, ValidatorFunctionWrapHandler, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from diffaudit.settings.attack import (
    Attack,
    FixedWeights,
    LabelEmbedding,
    Lora,
    Optimiser,
    Sampling,
    Stage,
    StagedWeights,
    Terms,
    TrainingImage,
)
from diffaudit.settings.base import Count, FolderName, Positive, Section, Seed
from diffaudit.settings.judging import Judging


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
