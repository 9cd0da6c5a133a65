"""What a term is: a loss of one kind, one value per image, with a declared lower bound."""

import math
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from diffaudit.candidate import Candidate


class Term(nn.Module, ABC):
    """A loss ``Candidate -> (B,)``. It never reduces over the batch, and a row depends on its own image alone.

    Parameters of a term learn in every stage, at a tenth of its rate, unless they are frozen; they and its persistent
    buffers are part of a run's checkpoint.
    """

    lower_bound: ClassVar[float] = -math.inf
    """0 or minus infinity: weightings that learn need to know."""
    hinge: ClassVar[bool] = False
    """Whether an image may satisfy it: exactly 0 from there on, and without gradient."""

    @abstractmethod
    def forward(self, candidate: Candidate) -> Tensor:
        """Values ``(B,)``."""


class BatchTerm(nn.Module, ABC):
    """A loss ``Candidate -> (B,)`` whose rows may depend on batch-mates of their class: one value per class group."""

    lower_bound: ClassVar[float] = -math.inf

    @abstractmethod
    def forward(self, candidate: Candidate) -> Tensor:
        """Values ``(B,)``."""


class ParameterTerm(nn.Module, ABC):
    """A loss of parameters alone, ``() -> ()``."""

    lower_bound: ClassVar[float] = 0.0

    @abstractmethod
    def forward(self) -> Tensor:
        """Value ``()``."""
