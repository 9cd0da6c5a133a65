"""Stages of every scheme in the tiny world: all terms are evaluated, and a stopped run goes on to the same bits."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffaudit import build
from diffaudit.errors import NotFinite
from diffaudit.events import Event
from diffaudit.inversion import training
from diffaudit.inversion.health import require_finite
from diffaudit.models.prior import DiffusionPrior
from diffaudit.records import RunFolder, read_curves, read_health
from diffaudit.settings import check_settings
from diffaudit.study.checkpoints import load_checkpoint
from diffaudit.study.health import health_lines
from diffaudit.study.runner import run_inversion
from diffaudit.weighting import JacobianDescent

from .conftest import PowerCutError

TERMS = {
    "A": {"prior", "cls_topk", "cls_feature", "id", "perc", "reg"},
    "B": {"prior", "cls_topk", "cls_feature", "cls_margin", "id_contrast", "perc", "reg"},
    "C": {"prior", "cls_topk", "cls_feature", "id", "attr", "perc", "div", "reg"},
    "D": {"prior", "cls_topk", "cls_feature", "id", "perc", "reg"},
}


def results(folder: Path) -> dict[str, bytes]:
    run = RunFolder(folder)
    files = [run.records, run.curves, run.health, *sorted(run.images.rglob("*.png"))]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files if path.exists()}


def complete(values: dict[str, Any]) -> dict[str, Any]:
    """All schemes at once, every step looked at: batches of two images a class, for the term of diversity."""
    for stage in values["stages"]:
        stage["batch"] = 4
    values |= {"schemes": ["A", "B", "C", "D"], "health": True, "checkpoint_every": 1, "reference_rows": False}
    values["terms"] = {"bank": {"capacity": 8, "per_image": 4, "interval": 2}}
    return values


@pytest.mark.parametrize("scheme", list(TERMS))
def test_a_scheme_evaluates_its_terms(tiny_values: dict[str, Any], tmp_path: Path, scheme: str) -> None:
    for stage in tiny_values["stages"]:
        stage["batch"] = 4
    tiny_values |= {"schemes": [scheme], "reference_rows": False}
    run = RunFolder(run_inversion(check_settings(tiny_values), tmp_path / "run", command="test"))
    points = read_curves(run.curves)
    assert len(points) == 6
    assert all(point.parts.keys() == TERMS[scheme] for point in points)
    moved = {group for group in points[0].weights if points[0].weights[group] != points[2].weights[group]}
    assert moved == ({"prior", "cls", "id", "perc"} if scheme == "D" else set())


@pytest.mark.parametrize("moment", [5, *(pytest.param(moment, marks=pytest.mark.slow) for moment in (3, 7))])
def test_all_schemes_together_go_on_to_the_same_bits(tiny_values: dict[str, Any], tmp_path: Path, moment: int) -> None:
    """With the bank, learned centres, learned weights and looks at the health in the checkpoint."""
    settings = check_settings(complete(tiny_values))
    run_inversion(settings, tmp_path / "whole", command="test")
    seen = 0

    def stop(event: Event) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run_inversion(settings, tmp_path / "cut", command="test", on_event=stop)
    run_inversion(settings, tmp_path / "cut", command="test")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    run = RunFolder(tmp_path / "whole")
    assert [point.step for point in read_health(run.health)] == list(range(6))
    saved = load_checkpoint(run.training)
    assert saved is not None
    groups = {name.split(".")[0] for name in saved.tensors}
    assert groups == {"embedding", "lora", "projector", "centres", "sigmas", "bank", "terms"}


def test_a_look_says_what_is_in_order(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    run = RunFolder(run_inversion(check_settings(complete(tiny_values)), tmp_path / "run", command="test"))
    lines = {line.name: line for line in health_lines(read_health(run.health))}
    assert {"unit embeddings", "cosines", "term gradients", "conflicts", "weights", "centre travel"} <= lines.keys()
    assert lines["unit embeddings"].passed
    assert lines["cosines"].passed


def test_how_far_embeddings_and_centres_came_is_told(tiny_values: dict[str, Any], tmp_path: Path) -> None:
    """Without centres that learn there is nothing to tell of them; without a step nothing has moved."""
    tiny_values |= {"schemes": ["B"], "reference_rows": False}
    metrics = RunFolder(run_inversion(check_settings(tiny_values), tmp_path / "run", command="test")).metrics
    found = json.loads(metrics.read_text())["travel"]
    for part, unit in (("embedding", "degrees"), ("centres", "spread of the centres at the start")):
        assert 0 < found[part]["mean"] <= found[part]["largest"]
        assert found[part]["unit"] == unit
    tiny_values |= {"schemes": [], "stages": [tiny_values["stages"][0] | {"steps": 0}]}
    metrics = RunFolder(run_inversion(check_settings(tiny_values), tmp_path / "still", command="test")).metrics
    found = json.loads(metrics.read_text())["travel"]
    assert found["centres"] is None
    assert found["embedding"]["largest"] == pytest.approx(0, abs=1e-4)


def test_a_training_that_breaks_names_the_term_and_keeps_what_it_had(
    tiny_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value of the fourth step is not finite: the first three are saved, and a run without the fault goes on."""
    settings = check_settings(tiny_values | {"reference_rows": False})
    run_inversion(settings, tmp_path / "whole", command="test")
    honest = require_finite

    def broken(name: str, value: Any, parts: Any, *, step: int) -> None:
        if step == 3:
            raise NotFinite(["id"], step)
        honest(name, value, parts, step=step)

    with monkeypatch.context() as patch:
        patch.setattr(training, "require_finite", broken)
        with pytest.raises(NotFinite, match="id"):
            run_inversion(settings, tmp_path / "cut", command="test")
    saved = load_checkpoint(RunFolder(tmp_path / "cut").training)
    assert saved is not None
    assert saved.step == 3
    run_inversion(settings, tmp_path / "cut", command="test")
    assert results(tmp_path / "cut") == results(tmp_path / "whole")


@pytest.mark.parametrize(
    ("condition", "expected"),
    [("label", [False] * 3), ("image", [True] * 3), ("hybrid", [True, False, False])],
)
def test_pictures_may_be_made_under_their_sources_own_identity(
    tiny_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, condition: str, expected: list[bool]
) -> None:
    """Whether each training batch is drawn under embeddings of public pictures: a hybrid stage begins there."""
    stage = tiny_values["stages"][1]
    stage |= {"condition": condition, "trains": ["lora", "projector"], "weights": stage["weights"] | {"prior": 0.0}}
    settings = check_settings(tiny_values | {"stages": [stage], "reference_rows": False})
    public = build.build_attacker(settings).public.embeddings
    asked: list[Tensor] = []
    honest = DiffusionPrior.condition

    def watched(self: DiffusionPrior, embeddings: Tensor | None, count: int, prompt: str = "") -> Any:
        if embeddings is not None and torch.is_grad_enabled():  # in training; samples are drawn without gradient
            asked.append(embeddings.detach())
        return honest(self, embeddings, count, prompt)

    monkeypatch.setattr(DiffusionPrior, "condition", watched)
    run_inversion(settings, tmp_path / "run", command="test")
    nearest = [torch.linalg.vector_norm(some[:, None] - public, dim=2).amin(1) for some in asked]
    assert [bool((distances < 1e-5).all()) for distances in nearest] == expected


def test_gradients_may_be_weighed(tiny_values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The aggregator's weights are what steps: UPGrad's end elsewhere than the sum, weights of 1 with it."""
    pytest.importorskip("torchjd")
    tiny_values |= {"stages": tiny_values["stages"][:1], "reference_rows": False}

    def trained(name: str, **more: Any) -> Tensor:
        run_inversion(check_settings(tiny_values | more), tmp_path / name, command="test")
        saved = load_checkpoint(RunFolder(tmp_path / name).training)
        assert saved is not None
        return saved.tensors["embedding.0"]

    plain, weighed = trained("plain"), trained("weighed", weighting={"kind": "aggregated"})
    monkeypatch.setattr(JacobianDescent, "forward", lambda self, losses, parameters, names: torch.ones(len(losses)))
    ones = trained("ones", weighting={"kind": "aggregated"})
    torch.testing.assert_close(ones, plain, rtol=0, atol=1e-4)
    assert (weighed - plain).abs().max() > 1e-3
