"""An ablation's folder as its runs leave it, with records whose rates are known: no model is loaded."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.records import CurvePoint, JudgeVote, Record, RunFolder, append_lines, write_json
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.planned_rows import Ablation

CLASSES, SAMPLES, SEEDS = range(8), range(2), (0, 1)
Hit = Callable[[int, int, int], bool]
"""Is the image of a class, seed and sample recognised?"""

ROWS: dict[str, Hit] = {
    "start": lambda label, seed, sample: label < 2,
    "oracle": lambda label, seed, sample: True,
    "rollout-baseline": lambda label, seed, sample: label < 4,
    "rollout-B": lambda label, seed, sample: label < 6 or (label == 6 and seed == 1),
}
"""Start 2 of 8 classes, ceiling all, baseline 4, B 6 in one seed and 7 in the other."""


class PowerCutError(Exception):
    """Stands for a power cut at a moment of a run."""


def image(row: str, label: int, sample: int, hit: bool, **values: Any) -> Record:
    """A record whose two judges agree."""
    found: dict[str, Any] = {
        "source": 3,
        "source_image": "images/source/00003.png",
        "target_hit": True,
        "target_log_probability": -0.1,
        "identity_cosine": 0.25,
        "knn_distance": 0.5,
        "diversity": 0.25,
        "perceptual_distance": 0.5,
        "attribute_error": {"pose": 0.25, "light": 0.75},
        "factor_error": None,
    }
    votes = {name: JudgeVote(predicted=label if hit else 99, hit=hit, top5=True) for name in ("one", "two")}
    path = f"images/{row}/{label:04d}-{sample:02d}.png"
    return Record(row=row, label=label, sample=sample, image=path, judges=votes, **(found | values))


def write_run(folder: Path, rows: dict[str, list[Record]], *, steps: int = 8, swing: float = 1.0) -> None:
    """A finished run: ``swing`` is the term's up and down around 10."""
    run = RunFolder(folder)
    points = [
        CurvePoint(
            stage="embed",
            step=step,
            parts={"id": 10 + swing * (-1) ** step},
            weights={"id": 1.0},
            value=0.0,
            gradient_norm=0.5,
            target_accuracy=0.5,
        )
        for step in range(steps)
    ]
    append_lines(run.records, [record.to_json() for found in rows.values() for record in found])
    append_lines(run.curves, [point.to_json() for point in points])
    stability = {
        "steps": steps,
        "coefficient_of_variation": {"id": swing / 10},
        "clipped_steps": 1,
        "irregular_steps": 0.0,
    }
    reference: dict[str, Any] = {row: {} for row in rows if row != "attack"}
    seconds = {"load": 50.0, "train": 20.0, "sample": 3.0 * len(rows)}
    write_json(run.metrics, {"stability": stability, "seconds": seconds, "reference": reference})
    write_json(run.manifest, {"state": "finished", "tries": 1})


def study_values() -> dict[str, Any]:
    """An ablation as a mapping: a baseline and row B in one mode."""
    return {
        "name": "study",
        "base": "base.yaml",
        "seeds": list(SEEDS),
        "classes": list(CLASSES),
        "rows": [
            {"name": "baseline", "mode": "rollout"},
            {"name": "B", "mode": "rollout", "set": {"stages.0.batch": 2}},
        ],
        "resamples": 200,
    }


def read_study(folder: Path, values: dict[str, Any]) -> Ablation:
    """The mapping as an ablation's file, beside a base with every default."""
    (folder / "base.yaml").write_text("name: base\n")
    (folder / "study.yaml").write_text(yaml.safe_dump(values))
    return load_ablation(folder / "study.yaml")


def write_study(folder: Path) -> None:
    """Every run of the ablation of :func:`study_values`, recognised as :data:`ROWS` say."""
    for key, diversity, swing in (("rollout-baseline", 0.25, 1.0), ("rollout-B", 0.3, 0.5)):
        wanted = {"attack": ROWS[key]}
        if key == "rollout-baseline":
            wanted |= {"start": ROWS["start"], "oracle": ROWS["oracle"]}
        for seed in SEEDS:
            rows = {row: _images(row, hit, seed, diversity=diversity) for row, hit in wanted.items()}
            write_run(folder / "runs" / key / str(seed), rows, swing=swing)


@pytest.fixture
def ablation_values() -> dict[str, Any]:
    """The mapping of :func:`study_values`; the test's own to change."""
    return study_values()


@pytest.fixture
def load(tmp_path: Path) -> Callable[[dict[str, Any]], Ablation]:
    """Reads a mapping as an ablation."""
    return lambda values: read_study(tmp_path, values)


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """The folder of :func:`write_study`."""
    write_study(tmp_path / "study")
    return tmp_path / "study"


def _images(row: str, hit: Hit, seed: int, **values: Any) -> list[Record]:
    return [image(row, label, sample, hit(label, seed, sample), **values) for label in CLASSES for sample in SAMPLES]


def row_named(table: dict[str, Any], name: str, mode: str | None = "rollout") -> dict[str, Any]:
    """The row of a table."""
    found: Sequence[dict[str, Any]] = [row for row in table["rows"] if (row["name"], row["mode"]) == (name, mode)]
    return found[0]
