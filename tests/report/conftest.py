"""A run folder as the runner leaves it, with pictures of noise and records whose rates are known."""

import json
from collections.abc import Callable
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from diffaudit.records import (
    CurvePoint,
    JudgeVote,
    PerturbationRecord,
    Record,
    RunFolder,
    append_lines,
    write_json,
)
from diffaudit.study.metrics import inversion_metrics
from diffaudit.study.perturbation_metrics import perturbation_metrics

from ..conftest import perturbed

CLASSES, SAMPLES = 8, 2
MANIFEST: dict[str, Any] = {
    "diffaudit": "0.1.0",
    "versions": {"torch": "2.13.0"},
    "device": "cpu",
    "threads": 2,
    "seed": 0,
    "command": "diffaudit invert configs/quick.yaml --set name='<a&b>'",
    "threat_model": {"has": ["the target's weights"], "has_not": ["a private image"]},
    "models": {"target": {"kind": "bundled", "fingerprint": "ab12"}},
    "seconds": {"embed": 1.0},
    "state": "finished",
    "started": "2025-01-01T00:00:00Z",
    "finished": "2025-01-01T00:01:00Z",
    "is_attack": True,
    "num_classes": 100,
}


class Page(HTMLParser):
    """Elements and their attributes, text by element stack, and whether every element was closed."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.stack:
            self.words += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


Hits = Callable[[str, int, int], tuple[bool, bool]]
MakeRun = Callable[..., Path]


def mostly(row: str, label: int, sample: int) -> tuple[bool, bool]:
    """Attack 6 of 8 classes by both judges, start 1, photographs all and none."""
    won = {"attack": label < 6, "start": label < 1, "upper": True, "lower": False}[row]
    return won, won


def barely(row: str, label: int, sample: int) -> tuple[bool, bool]:
    """Attack and other people alike: one class of 8; no better than the start."""
    won = {"attack": label < 1, "start": label in (1, 2), "upper": True, "lower": label < 1}[row]
    return won, won


def write_png(path: Path, generator: np.random.Generator, size: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(generator.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(
        hits: Hits = mostly,
        *,
        rows: tuple[str, ...] = ("attack", "start", "upper", "lower"),
        steps: int = 0,
        manifest: dict[str, Any] | None = MANIFEST,
        classes: int = CLASSES,
    ) -> Path:
        run = RunFolder(tmp_path / "run <1>")
        generator = np.random.default_rng(0)
        records = [
            _record(row, label, sample, hits) for row in rows for label in range(classes) for sample in range(SAMPLES)
        ]
        for record in records:
            write_png(run.path / record.image, generator)
        write_png(run.images / "source" / "00003.png", generator)
        for label in range(classes):
            for k in range(3):
                write_png(run.images / "reference" / f"{label:04d}-{k:02d}.png", generator)
        curves = [
            CurvePoint(
                stage="embed" if step < steps // 3 else "adapt",
                step=step,
                parts={"prior": 1.0 / (1 + step), "cls.logit": -float(step)} | ({"late": 1.0} if step > 20 else {}),
                weights={"prior": 0.3, "cls": 1.0},
                value=0.0,
                gradient_norm=1.0,
                target_accuracy=0.5,
            )
            for step in range(steps)
        ]
        append_lines(run.records, [record.to_json() for record in records])
        append_lines(run.curves, [json.dumps(asdict(point)) for point in curves])
        write_json(
            run.metrics, inversion_metrics(records, curves=curves, clip=1.0, seconds={"embed": 61.0}, resamples=500)
        )
        if manifest is not None:
            write_json(run.manifest, manifest)
            run.settings.write_text("name: '<quick>'\n")
        return run.path

    return make


def _record(row: str, label: int, sample: int, hits: Hits) -> Record:
    won = dict(zip(("plain", "depthwise"), hits(row, label, sample), strict=True))
    photograph = row in ("upper", "lower")
    return Record(
        row=row,
        label=label,
        sample=sample,
        source=None if photograph else 3,
        image=f"images/{row}/{label:04d}-{sample:02d}.png",
        source_image=None if photograph else "images/source/00003.png",
        target_hit=True,
        target_log_probability=-0.1,
        judges={
            name: JudgeVote(predicted=label if hit else 42, hit=hit, top5=hit or label % 2 == 0)
            for name, hit in won.items()
        },
        identity_cosine=-0.25,
        knn_distance=0.5,
        diversity=0.25,
        perceptual_distance=None if photograph else 0.5,
        attribute_error=None if photograph else {"pose": 0.125},
        factor_error=None,
    )


MODELS = {"seen": "surrogate", "one": "heldout", "two": "heldout", "kin": "sibling"}
IMAGES = 6
Fooled = Callable[[str, int, str], bool]
MakePerturbed = Callable[..., Path]


def half(row: str, image: int, model: str) -> bool:
    """The attack fools all but the last two pictures' held-out models; the reference one model on one picture."""
    if row == "attack":
        return image < IMAGES - 2 or model in ("seen", "kin")
    return image == 0 and model == "one"


@pytest.fixture
def make_perturbed(tmp_path: Path) -> MakePerturbed:
    """A perturbation's folder: picture 1 was wrong under model two before."""

    def make(
        fooled: Fooled = half,
        *,
        rows: tuple[str, ...] = ("attack", "pgd-8"),
        models: dict[str, str] = MODELS,
        distances: dict[str, float] | None = None,
        manifest: dict[str, Any] | None = MANIFEST,
        **values: Any,
    ) -> Path:
        run = RunFolder(tmp_path / "perturbed <1>")
        generator = np.random.default_rng(0)
        records = [
            _perturbed(row, image, models, fooled, (distances or {}).get(row, 0.25), values)
            for row in rows
            for image in range(IMAGES)
        ]
        for record in records:
            write_png(run.path / record.picture, generator)
            write_png(run.path / record.clean_picture, generator)
        append_lines(run.records, [record.to_json() for record in records])
        write_json(run.metrics, perturbation_metrics(records, models, seconds={"attack": 12.0}, resamples=300))
        run.settings.write_text("audit: perturbation\nname: '<perturb>'\n")
        if manifest is not None:
            write_json(run.manifest, manifest)
        return run.path

    return make


def _perturbed(
    row: str, image: int, models: dict[str, str], fooled: Fooled, distance: float, values: dict[str, Any]
) -> PerturbationRecord:
    success = {model: fooled(row, image, model) for model in models}
    votes = {
        model: ("w" if image == 1 and model == "two" else "r") + ("f" if won else "k") for model, won in success.items()
    }
    found: dict[str, Any] = {
        "predicted": {model: 42 if won else image for model, won in success.items()},
        "defended": {"jpeg-75": {model: 0.5 if won else 0.0 for model, won in success.items()}},
        "reconstruction_psnr": 40.0 if row == "attack" else None,
        "perceptual_distance": distance,
    }
    return perturbed(image, votes, row=row, **(found | values))
