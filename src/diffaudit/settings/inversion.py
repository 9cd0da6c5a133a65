"""A whole inversion run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from diffaudit._faults import FaultsError
from diffaudit.settings.attack import (
    AnyWeights,
    Attack,
    LabelEmbedding,
    Lora,
    Optimiser,
    Sampling,
    Stage,
    StagedWeights,
    TrainingImage,
)
from diffaudit.settings.base import Count, FolderName, Positive, Section, Seed
from diffaudit.settings.consistency import RULES
from diffaudit.settings.judging import Judging
from diffaudit.settings.schemes import Scheme, overridden, weightless, with_schemes
from diffaudit.settings.seeking import seeking_faults
from diffaudit.settings.terms import Terms


def _classes(rule: str) -> WrapValidator:
    """Each class once; and the faults of a union, one for each of its members, said as one: that it should ``rule``."""

    def checked(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        try:
            found = check(value)
        except ValidationError as error:
            raise PydanticCustomError("classes", "Input should {rule}", {"rule": rule}) from error
        if isinstance(found, list) and len(set(found)) < len(found):
            raise PydanticCustomError("classes", "Input should name each class once")
        return found

    return WrapValidator(checked)


ClassIndices = Annotated[list[Count], Field(min_length=1)]
Classes = Annotated[
    Literal["all"] | Positive | ClassIndices,
    _classes("be 'all', a number of classes from 1, or a list of class indices from 0"),
]
NamedClasses = Annotated[
    Literal["all"] | ClassIndices | None, _classes("be 'all', a list of class indices from 0, or null")
]
"""Classes that no seed draws."""


class InversionSettings(Section):
    """A whole inversion run."""

    audit: Literal["inversion"] = "inversion"
    name: FolderName = "quick"
    seed: Seed = 0
    device: Literal["cpu"] = "cpu"
    threads: Positive | None = None
    classes: Classes = "all"
    schemes: list[Scheme] = []
    """Letters whose terms and weightings are laid under what is said here."""
    attack: Attack = Attack()
    embedding: LabelEmbedding = LabelEmbedding()
    image: TrainingImage = TrainingImage()
    terms: Terms = Terms()
    weighting: AnyWeights = StagedWeights()
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
    health: bool = False
    """Whether training is looked at every `checkpoint_every` steps: a backward pass a term each time."""

    @model_validator(mode="before")
    @classmethod
    def _lay_schemes_under(cls, values: Any) -> Any:
        given = values.get("schemes") if isinstance(values, dict) else None
        if not isinstance(given, Iterable) or isinstance(given, str | Mapping):
            return values
        schemes = list(given)
        known = all(scheme in get_args(Scheme) for scheme in schemes)
        return {**(with_schemes(values, schemes) if known else values), "schemes": schemes}

    @field_validator("schemes")
    @classmethod
    def _each_once(cls, schemes: list[Scheme]) -> list[Scheme]:
        if len(set(schemes)) < len(schemes):
            raise PydanticCustomError("schemes", "Input should name each scheme once")
        return schemes

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        found = [*self._scheme_faults(), *self._stage_faults()]
        found += [fault for rule in RULES if (fault := rule(self.terms, self.weighting, self.stages))]
        found += seeking_faults(self.attack, self.embedding, self.terms, self.stages)
        if found:
            raise FaultsError(found)
        return self

    def _scheme_faults(self) -> Iterator[str]:
        vain = overridden(self.schemes, self.terms, self.weighting)
        if vain:
            rule = "name none that the settings override whole"
            found = "; ".join(f"{scheme}, overridden by {', '.join(keys)}" for scheme, keys in vain.items())
            yield f"`schemes` should {rule}. Found {found}. Leave out the letter, or one of its keys."
        idle = weightless(self.schemes, self.terms, self.weighting, self.stages)
        if idle:
            rule = "name none whose groups all have the weight 0 in every stage, where it changes nothing"
            found = "; ".join(f"{scheme}, with {', '.join(groups)}" for scheme, groups in idle.items())
            yield f"`schemes` should {rule}. Found {found}. Give them a weight, or leave out the letter."

    def _stage_faults(self) -> Iterator[str]:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            yield f"`stages` should have names of their own. Found {names}."
