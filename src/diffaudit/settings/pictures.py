"""The pictures that settings name: procedural faces or folders, public or private."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from diffaudit.settings.base import Integer, Positive, Section, Seed


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


class PrivateFaces(Section):
    """Held-out photographs of the embedded benchmark's private identities."""

    kind: Literal["faces"] = "faces"
    per_identity: Annotated[Integer, Field(ge=2)] = 8
    seed: Seed = 7


PrivatePictures = Annotated[PrivateFaces | PictureFolders, Field(discriminator="kind")]
