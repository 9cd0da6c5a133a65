"""What settings are made of: sections that refuse unknown keys, and numbers with their ranges."""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


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


class Section(BaseModel):
    """A part of the settings: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
