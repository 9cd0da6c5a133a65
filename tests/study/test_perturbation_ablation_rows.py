"""An ablation of perturbations as it is read: rows over a base, references in one row's runs, every fault at once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.settings import PerturbationSettings, SettingsError
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.planned_rows import Ablation

Load = Callable[[dict[str, Any]], Ablation]
PLAIN = {"plain": {"kind": "bundled", "name": "hair-plain"}}
VALUES: dict[str, Any] = {
    "audit": "perturbation",
    "name": "study",
    "base": "base.yaml",
    "seeds": [3, 4],
    "threads": 1,
    "set": {"images.count": 4, "images.kind": "faces", "judging.references": [{"method": "pgd", "budget": 8}]},
    "rows": [
        {"name": "baseline", "baseline": False, "set": {"surrogates": PLAIN}},
        {"name": "baseline+mean", "baseline": True, "set": {"ensemble.kind": "mean"}},
        {"name": "full", "set": {"loss": {"kind": "ce"}, "budget.iterations": 7}},
    ],
}


@pytest.fixture
def load_over(tmp_path: Path) -> Load:
    """Reads a mapping as an ablation over a base with every default."""

    def load(values: dict[str, Any]) -> Ablation:
        (tmp_path / "base.yaml").write_text("audit: perturbation\nname: base\n")
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(values))
        return load_ablation(tmp_path / "study.yaml")

    return load


def settings_of(ablation: Ablation) -> list[PerturbationSettings]:
    found = [row.settings for row in ablation.rows]
    assert all(isinstance(settings, PerturbationSettings) for settings in found)
    return found  # type: ignore[return-value]


def faults_of(load: Load, values: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(values)
    return "\n".join(caught.value.faults)


def test_rows_are_laid_over_the_base(load_over: Load) -> None:
    ablation = load_over(VALUES)
    assert [(row.key, row.mode, row.is_baseline) for row in ablation.rows] == [
        ("baseline", None, False),
        ("baseline+mean", None, True),
        ("full", None, False),
    ]
    baseline, mean, full = settings_of(ablation)
    assert list(baseline.surrogates) == ["plain"]
    assert list(mean.surrogates) == ["residual", "plain", "squeeze"]
    assert (mean.ensemble.kind, full.loss.kind, full.budget.iterations) == ("mean", "ce", 7)
    assert (full.name, full.threads, full.images.count) == ("study-full", 1, 4)
    assert baseline.judging.heldout == full.judging.heldout
    assert ablation.rows[0].at(4).seed == 4


def test_references_are_made_in_the_baselines_runs_alone(load_over: Load) -> None:
    judging = [settings.judging for settings in settings_of(load_over(VALUES))]
    assert [bool(one.references) for one in judging] == [False, True, False]
    assert [one.rebuilt for one in judging] == [False, True, False]


def test_reference_rows_may_be_listed_contrasted_and_tabled(load_over: Load) -> None:
    rows = [*VALUES["rows"], {"name": "pgd-8"}, {"name": "rebuilt"}]
    contrasts = [{"row": "full", "against": "pgd-8"}]
    ablation = load_over(VALUES | {"rows": rows, "contrasts": contrasts, "tables": {"pixels": ["full", "pgd-8"]}})
    assert len(ablation.rows) == 3


def test_the_shipped_perturbation_is_the_default_base(load_over: Load) -> None:
    values = {"audit": "perturbation", "rows": [{"name": "baseline"}]}
    assert settings_of(load_over(values))[0].prompts.distractor == "confusion"


def test_every_fault_is_told_at_once(load_over: Load) -> None:
    rows = [
        *VALUES["rows"],
        {"name": "A", "set": {"images.count": 9, "judging.defences": [], "device": "cpu", "seed": 1, "prior": {}}},
        {"name": "B", "set": {"budget.iterations": 0, "goal": "distractor"}},
        {"name": "pgd-8", "set": {"batch": 2}},
        {"name": "mi-fgsm-4"},
        {"name": "FULL"},
        {"name": "baseline"},
    ]
    found = faults_of(load_over, VALUES | {"rows": rows, "seeds": [1, 1], "contrasts": [{"row": "C", "against": "A"}]})
    for words in (
        "`A` should leave `images.count` to the ablation and its base. Found 9.",
        "`A` should leave `judging.defences` to the ablation and its base. Found [].",
        "`A` should leave `device` to the ablation and its base. Found 'cpu'.",
        "`A` should leave `seed` to the ablation and its base. Found 1.",
        "`A` should leave `prior` to the ablation and its base. Found {}.",
        "`B` should leave `goal` to the ablation and its base. Found 'distractor'.",
        "B: `budget.iterations` should be greater than or equal to 1. Found 0.",
        "`rows` should leave out `set` of the row `pgd-8`: it is read from the baseline's runs.",
        "`rows` should name `mi-fgsm-4` only where `judging` asks for that reference row.",
        "`rows` should name each once. Found ['baseline', 'full'] more than once.",
        "`rows` should hold one baseline. Found ['baseline+mean', 'baseline'].",
        "`seeds` should name each once. Found [1] more than once.",
        "`contrasts` should name rows, such as baseline. Found ['C'].",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": "all"}, "`classes` should be left out: no such key."),
        ({"modes": {"rollout": {}}}, "`modes` should be left out: no such key."),
        ({"rows": [{"name": "baseline", "mode": "rollout"}]}, "`rows.0.mode` should be left out: no such key."),
        ({"rows": [{"name": "A"}]}, "`rows` should hold one baseline. Found []."),
        ({"rows": [{"name": "rebuilt"}]}, "`rows` should hold a baseline to run. Found ['rebuilt']."),
        ({"base": "quick"}, "`audit` should be 'perturbation'. Found 'inversion'."),
        ({"set": {"threads": 2}}, "`baseline` should leave `threads` to the ablation and its base. Found 2."),
        ({"set": {"judging.references": 3}}, "baseline: `judging.references` should be a list. Found 3."),
    ],
)
def test_refusals(load_over: Load, changes: dict[str, Any], words: str) -> None:
    assert words in faults_of(load_over, VALUES | changes)


def test_without_the_rebuilt_row_its_name_is_no_rows(load_over: Load) -> None:
    values = VALUES | {"set": {"judging.rebuilt": False}, "rows": [{"name": "baseline"}, {"name": "rebuilt"}]}
    assert "`rows` should name `rebuilt` only where" in faults_of(load_over, values)
