"""What an inversion found: one record per judged image, one curve point per step, looks at its health."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffaudit.records.folder import whole_lines

ROWS = ("attack", "attack-finished", "start", "oracle", "upper", "lower")
"""Kinds of judged images: the attack's reconstructions; the same after gradient steps on their pixels
(`attack-finished`, adversarial examples of the target and not reconstructions); the same run without a step (`start`)
and under the true private embedding (`oracle`, not an attack); held-out private photographs (`upper`) and other
people's (`lower`)."""


@dataclass(frozen=True, kw_only=True)
class JudgeVote:
    """One judge's opinion of one image: the class it names; is the class sought its first, or in its first five?"""

    predicted: int
    hit: bool
    top5: bool


@dataclass(frozen=True, kw_only=True)
class Record:
    """One judged image. Paths are relative to the run; measures that do not apply are None.

    Attributes:
        row: one of :data:`ROWS`.
        label: the class sought, an index of the target's.
        sample: number of the image within its class and row.
        source: number of the public picture that it started from; None for photographs.
        image: the judged 8-bit PNG.
        source_image: the public picture as PNG; None for photographs.
        target_hit: is ``label`` the target's first choice?
        target_log_probability: of ``label`` under the target, in nats.
        judges: votes by judge name.
        identity_cosine: to the class's private mean under the judges' encoder, in [-1, 1].
        knn_distance: to the nearest private photograph of the class, between unit embeddings, in [0, 2].
        diversity: mean perceptual distance between the images of this class and row; the class's value, repeated.
        embedding_variance: of the images of this class and row under the judges' encoder, in [0, 1]; repeated likewise.
        perceptual_distance: to the source. Lower is nearer to the source, not better.
        attribute_error: to the source, in public standard deviations, by attribute.
        factor_error: mean absolute error of the identity factors, in public standard deviations.
    """

    row: str
    label: int
    sample: int
    source: int | None
    image: str
    source_image: str | None
    target_hit: bool
    target_log_probability: float
    judges: dict[str, JudgeVote]
    identity_cosine: float
    knn_distance: float
    diversity: float | None
    embedding_variance: float | None = None
    perceptual_distance: float | None
    attribute_error: dict[str, float] | None
    factor_error: float | None

    @property
    def judge_accuracy(self) -> float:
        """Share of the judges whose first choice is ``label``."""
        return sum(vote.hit for vote in self.judges.values()) / len(self.judges)

    @property
    def judge_accuracy_top5(self) -> float:
        """Share of the judges with ``label`` among their first five."""
        return sum(vote.top5 for vote in self.judges.values()) / len(self.judges)

    @classmethod
    def from_json(cls, line: str) -> "Record":
        """The record of one line of ``records.jsonl``."""
        values: dict[str, Any] = json.loads(line)
        values["judges"] = {name: JudgeVote(**vote) for name, vote in values["judges"].items()}
        return cls(**values)

    def to_json(self) -> str:
        """One line, keys in order of declaration."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """One training step: unweighted terms (batch means), the weights in force, and what the optimiser did.

    ``gradient_norm`` is before clipping; ``target_accuracy`` is that of the step's own batch.
    """

    stage: str
    step: int
    parts: dict[str, float]
    weights: dict[str, float]
    value: float
    gradient_norm: float
    target_accuracy: float

    def to_json(self) -> str:
        """One line, keys in order of declaration."""
        return json.dumps(asdict(self))


@dataclass(frozen=True, kw_only=True)
class HealthPoint:
    """One look at a training's health, taken every few steps; what does not apply is None or empty.

    Attributes:
        stage: of the run.
        step: of the run, counted through its stages.
        norm_error: largest distance of a length from 1, by the name of what should be unit vectors.
        positives: least and largest inner product of the images' embeddings with their anchors.
        negatives: the same with their negatives.
        gradient_norms: of each term's batch mean, unweighted, over the trained parameters.
        gradient_cosines: between the gradients of two terms, each pair once; None where one vanishes.
        satisfied: share of the images for which a term is exactly 0, of the hinges among the terms.
        weights: by group, in force at this step.
        log_variances: ``log sigma^2`` by group, of those whose weight is learned.
        at_clamp: the groups among them that sit at a bound, and that bound.
        centre_travel: farthest way of a learned centre from its start, of the classes sought, in units of their spread.
    """

    stage: str
    step: int
    norm_error: dict[str, float]
    positives: tuple[float, float] | None
    negatives: tuple[float, float] | None
    gradient_norms: dict[str, float]
    gradient_cosines: dict[str, dict[str, float | None]]
    satisfied: dict[str, float]
    weights: dict[str, float]
    log_variances: dict[str, float]
    at_clamp: dict[str, float]
    centre_travel: float | None

    @classmethod
    def from_json(cls, line: str) -> "HealthPoint":
        """The look of one line of ``health.jsonl``."""
        values: dict[str, Any] = json.loads(line)
        for name in ("positives", "negatives"):
            values[name] = None if values[name] is None else tuple(values[name])
        return cls(**values)

    def to_json(self) -> str:
        """One line, keys in order of declaration."""
        return json.dumps(asdict(self))


def read_records(path: Path) -> list[Record]:
    """All records of a run, in file order; a last line cut off by a kill is passed over."""
    return [Record.from_json(line) for line in whole_lines(path)]


def read_curves(path: Path) -> list[CurvePoint]:
    """All curve points of a run, in file order; a last line cut off by a kill is passed over."""
    return [CurvePoint(**json.loads(line)) for line in whole_lines(path)]


def read_health(path: Path) -> list[HealthPoint]:
    """All looks at a run's health, in file order; a last line cut off by a kill is passed over."""
    return [HealthPoint.from_json(line) for line in whole_lines(path)]
