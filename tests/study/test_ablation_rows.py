from collections.abc import Callable
from typing import Any

import pytest

from diffaudit.settings import InversionSettings, SettingsError, check_settings
from diffaudit.study.planned_rows import Ablation
from diffaudit.study.reference_rows import start_of

Load = Callable[[dict[str, Any]], Ablation]


def resolved(load: Load, values: dict[str, Any]) -> list[InversionSettings]:
    """The rows' settings, inversions all."""
    found = [row.settings for row in load(values).rows]
    assert all(isinstance(settings, InversionSettings) for settings in found)
    return found  # type: ignore[return-value]


def faults_of(load: Load, values: dict[str, Any]) -> str:
    with pytest.raises(SettingsError) as caught:
        load(values)
    return "\n".join(caught.value.faults)


def test_a_row_is_the_base_then_its_mode_then_itself(load: Load, ablation_values: dict[str, Any]) -> None:
    ablation_values |= {
        "threads": 1,
        "modes": {"rollout": {"image.steps": 3, "stages.0.batch": 4}, "one_step": {"embedding.kind": "table"}},
        "rows": [
            {"name": "baseline", "mode": ["one_step", "rollout"]},
            {"name": "A+B", "mode": "rollout", "set": {"stages.0.batch": 2}},
        ],
    }
    one_step, rollout, scheme = load(ablation_values).rows
    assert [row.key for row in (one_step, rollout, scheme)] == ["one_step-baseline", "rollout-baseline", "rollout-A+B"]
    assert (scheme.settings.name, scheme.settings.threads) == ("study-rollout-A-B", 1)
    assert scheme.at(7).seed == 7
    first, second, third = resolved(load, ablation_values)
    assert (first.embedding.kind, second.embedding.kind) == ("table", "manifold")
    assert (first.image.mode, third.image.mode) == ("one_step", "rollout")
    assert (second.stages[0].batch, third.stages[0].batch, third.image.steps) == (4, 2, 3)
    assert [settings.classes for settings in (first, third)] == [list(range(8))] * 2


def test_the_ablation_sets_what_rows_may_not(load: Load, ablation_values: dict[str, Any]) -> None:
    ablation_values |= {
        "set": {"attack.public.kind": "faces", "attack.public.identities": 300, "image.steps": 5, "stages.0.batch": 6},
        "modes": {"rollout": {"image.steps": 3}},
        "rows": [
            {"name": "baseline", "mode": "rollout"},
            {"name": "B", "mode": "rollout", "set": {"stages.0.batch": 2}},
        ],
    }
    baseline, scheme = resolved(load, ablation_values)
    assert (baseline.attack.public.identities, scheme.attack.public.identities) == (300, 300)  # type: ignore[union-attr]
    assert (baseline.image.steps, baseline.stages[0].batch, scheme.stages[0].batch) == (3, 6, 2)
    ablation_values["set"]["seed"] = 4
    assert "should leave `seed` to the ablation and its base. Found 4." in faults_of(load, ablation_values)


def test_a_row_that_sets_a_list_whole_is_rid_of_what_its_mode_sets_inside(
    load: Load, ablation_values: dict[str, Any]
) -> None:
    stage = {"name": "one", "trains": ["embedding"], "steps": 1, "rate": 0.1, "weights": {"cls": 1.0}}
    ablation_values |= {
        "set": {"stages": [stage, stage | {"name": "two"}]},
        "modes": {"rollout": {"stages.1.steps": 9}},
        "rows": [
            {"name": "baseline", "mode": "rollout"},
            {"name": "B", "mode": "rollout", "set": {"stages": [stage]}},
        ],
    }
    baseline, scheme = resolved(load, ablation_values)
    assert [stage.steps for stage in baseline.stages] == [1, 9]
    assert [stage.steps for stage in scheme.stages] == [1]


def test_reference_rows_are_drawn_once(load: Load, ablation_values: dict[str, Any]) -> None:
    ablation_values["rows"] = [
        {"name": "B", "mode": "rollout"},
        {"name": "baseline", "mode": ["one_step", "rollout"]},
    ]
    assert [settings.reference_rows for settings in resolved(load, ablation_values)] == [False, True, False]
    ablation_values["modes"] = {"rollout": {"sampling.strength": 0.5}}  # another start: drawn for each mode
    assert [settings.reference_rows for settings in resolved(load, ablation_values)] == [False, True, True]


def test_every_fault_is_told_at_once(load: Load, ablation_values: dict[str, Any]) -> None:
    ablation_values["rows"] += [
        {"name": "C", "mode": "rollout", "set": {"stages.0.batch": 0, "seed": 3, "attack.prior.location": "x"}},
        {"name": "b", "mode": "rollout", "set": {"sampling.keep": 2, "image.mode": "one_step"}},
        {"name": "oracle", "set": {"stages.0.batch": 2}},
    ]
    ablation_values |= {
        "contrasts": [{"row": "B", "against": "rollout-baseline"}, {"row": "upper", "against": "rollout-B"}],
        "tables": {"weighting": ["D"]},
        "seeds": [1, 1],
    }
    found = faults_of(load, ablation_values)
    for words in (
        "rollout-C: `stages.0.batch` should be greater than or equal to 1. Found 0.",
        "`rollout-C` should leave `seed` to the ablation and its base. Found 3.",
        "`rollout-C` should leave `attack.prior.location` to the ablation and its base. Found 'x'.",
        "`rollout-b` should leave `image.mode` to the ablation",
        "`sampling.keep` should be the same in every row",
        "`rows` should leave out `set` of the row `oracle`",
        "`rows` should name each once. Found ['rollout-b'] more than once.",
        "`seeds` should name each once. Found [1] more than once.",
        "`contrasts` should name rows with their mode, such as rollout-baseline. Found ['B'].",
        "`contrasts` should name rows whose images have partners. Found ['upper']: photographs.",
        "`tables.weighting` should name rows. Found ['D'].",
    ):
        assert words in found


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": [{"name": "B", "mode": "rollout"}]}, "`rows` should hold one baseline of mode rollout. Found []."),
        ({"rows": [{"name": "start"}]}, "`rows` should hold a baseline to run. Found ['start']."),
        ({"rows": []}, "`rows` should have at least 1 item"),
        ({"classes": 5}, "`classes` should be 'all', a list of class indices from 0, or null. Found 5."),
        ({"base": "nosuch"}, "`base` should be a YAML file or a shipped configuration"),
        ({"base": "nosuch.yaml"}, "`base` should be a YAML file or a shipped configuration"),
        ({"rows": [{"name": "a/b"}]}, "`rows.0.name` should match pattern"),
        ({"rows": [{"name": "baseline", "mode": "rolout"}]}, "`rows.0.mode.0` should be 'one_step', 'rollout' or None"),
        ({"metric": 1}, "`metric` should be left out: no such key."),
    ],
)
def test_refusals(load: Load, ablation_values: dict[str, Any], changes: dict[str, Any], words: str) -> None:
    assert words in faults_of(load, ablation_values | changes)


def test_classes_drawn_by_the_seed_are_refused(load: Load, ablation_values: dict[str, Any]) -> None:
    ablation_values |= {"base": "quick", "classes": None}
    assert "`classes` should be all or a list: seeds would draw others. Found 20." in faults_of(load, ablation_values)


def test_optimised_pixels_are_no_other_start(tiny_values: dict[str, Any]) -> None:
    plain = check_settings(tiny_values)
    tiny_values["sampling"]["finishing"] = {"steps": 3}
    assert start_of(check_settings(tiny_values)) == start_of(plain)
    tiny_values["sampling"]["steps"] += 1
    assert start_of(check_settings(tiny_values)) != start_of(plain)


def test_a_baseline_may_have_another_name(load: Load, ablation_values: dict[str, Any]) -> None:
    ablation_values["rows"][0] = {"name": "plain", "mode": "rollout", "baseline": True}
    assert [row.is_baseline for row in load(ablation_values).rows] == [True, False]
