"""An ablation of perturbations of three faces: made, stopped, gone on with, and refused where it must be."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.errors import MissingExtra, ThreatModelViolation
from diffaudit.events import Event
from diffaudit.study.ablation import run_ablation
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.planned_rows import Ablation

from .conftest import PowerCutError, row_named

BASE: dict[str, Any] = {
    "audit": "perturbation",
    "name": "base",
    "images": {"kind": "faces", "count": 3},
    "batch": 2,
    "latents": {"steps": 2, "start": 1},
    "terms": [],
    "transformations": {"samples": 0},
    "budget": {"iterations": 2, "stop_margin": None},
    "step": {"rate": 0.1},
    "judging": {"defences": [{"kind": "bit_depth"}]},
}
VALUES: dict[str, Any] = {
    "audit": "perturbation",
    "name": "small",
    "base": "base.yaml",
    "seeds": [0, 1],
    "threads": 1,
    "resamples": 50,
    "rows": [
        {"name": "baseline", "set": {"surrogates": {"plain": {"kind": "bundled", "name": "hair-plain"}}}},
        {"name": "three", "set": {"budget.iterations": 1}},
    ],
}


def load(folder: Path, **changes: Any) -> Ablation:
    (folder / "base.yaml").write_text(yaml.safe_dump(BASE))
    (folder / "small.yaml").write_text(yaml.safe_dump(VALUES | changes))
    return load_ablation(folder / "small.yaml")


def test_two_rows_two_seeds_stopped_and_gone_on_with(tmp_path: Path) -> None:
    """Stopped in the third run's second batch, the same call makes what is left; no finished run is touched again."""
    ablation, folder = load(tmp_path), tmp_path / "out"
    seen: list[Event] = []

    def stop(event: Event) -> None:
        seen.append(event)
        if sum(one.step == 2 and bool(one.parts) for one in seen) == 3:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        run_ablation(ablation, folder, command="test", on_event=stop)
    finished = {path: path.stat().st_mtime_ns for path in (folder / "runs").rglob("report.html")}
    assert len(finished) == 2
    kept = list((folder / "runs" / "baseline" / "1" / "checkpoints").iterdir())
    assert len(kept) == 1
    made = kept[0].stat().st_mtime_ns

    run_ablation(ablation, folder, command="test", on_event=seen.append)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert kept[0].stat().st_mtime_ns == made
    assert "2 of 4 runs are finished already" in [event.message for event in seen]
    manifests = [json.loads(path.read_text()) for path in sorted((folder / "runs").rglob("manifest.json"))]
    assert sorted(manifest["tries"] for manifest in manifests) == [1, 1, 1, 2]
    assert not (folder / "cache").exists()
    assert not (folder / "runs" / "three" / "0" / "images" / "rebuilt").exists()

    table = json.loads((folder / "ablation.json").read_text())
    assert [row["name"] for row in table["rows"]] == ["rebuilt", "baseline", "three"]
    row = row_named(table, "three", None)
    assert (row["seeds"], row["samples"], row["images"]) == ([0, 1], 6, 3)
    assert len(row["versus_baseline"]["perceptual_distance"]["by_seed"]) == 2
    assert row["metrics"]["iterations"]["value"] == 1
    assert {"transfer.depthwise", "transfer.mixer", "defended.depth-4"} <= row["metrics"].keys()
    assert "white_box_mean" not in row["versus_baseline"]  # three surrogates against one
    assert table["failures"] == []
    for name in ("README.md", "report.html", "tables/results.tex", "tables/differences.md", "figures/frontier.png"):
        assert (folder / name).is_file()
    assert not (folder / "tables" / "claims.md").exists()

    before = (folder / "ablation.json").read_bytes()
    run_ablation(ablation, folder, command="test")  # nothing left to run: the same table
    assert (folder / "ablation.json").read_bytes() == before


def test_a_row_that_attacks_a_held_out_model_is_refused_before_any_work(tmp_path: Path) -> None:
    rows = [*VALUES["rows"], {"name": "A", "set": {"surrogates": {"a": {"kind": "bundled", "name": "hair-mixer"}}}}]
    ablation = load(tmp_path, rows=rows)
    with pytest.raises(ThreatModelViolation, match=r"`judging\.heldout\.mixer` is a model that the attack holds too"):
        run_ablation(ablation, tmp_path / "out", command="test")
    assert not (tmp_path / "out").exists()


def test_references_without_their_library_are_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    ablation = load(tmp_path, set={"judging.references": [{"method": "pgd", "budget": 8}]})
    with pytest.raises(MissingExtra, match="foolbox"):
        run_ablation(ablation, tmp_path / "out", command="test")
    assert not (tmp_path / "out").exists()
