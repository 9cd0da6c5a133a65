"""What a long job tells whoever watches it: the one value that loops and studies hand to their callback."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """How far a job is.

    Attributes:
        stage: the part of the job that is under way, such as ``embed``, ``adapt`` or ``sample``.
        step: steps of this stage that are done, from 0.
        steps: all steps of this stage; 0 where nobody knows.
        parts: the unweighted terms of this step, by name; empty where the stage has none.
        message: something worth a line of its own, such as ``continues from step 300``.
    """

    stage: str
    step: int
    steps: int
    parts: dict[str, float]
    message: str = ""
