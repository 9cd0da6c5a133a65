"""Every shipped configuration: it loads, names its command, and says everything that it leaves to nobody."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.build import build_stages, build_weighting
from diffaudit.settings import InversionSettings, UncertaintyWeights, dump_settings, load_audit, load_settings
from diffaudit.study.ablation_rows import load_ablation

REPOSITORY = Path(__file__).parents[1]
CONFIGS = REPOSITORY / "configs"
AUDITS = sorted(path for path in CONFIGS.glob("*.yaml") if "ablation" not in path.stem)
ABLATIONS = sorted({*CONFIGS.glob("*.yaml"), *REPOSITORY.glob("benchmarks/*/*.yaml")} - set(AUDITS))
COMPLETE = [path for path in AUDITS if path.stem not in ("quick", "orl")]
"""Those that write every key out; `quick` shows how little is needed, `orl` what photographs change."""

OF_OTHER_KINDS = {
    *("embedding.hidden", "embedding.layers", "sampling.finishing"),
    *("attack.prior.autoencoder", "attack.prior.face_id", "prior.autoencoder"),
}


@pytest.mark.parametrize("path", AUDITS, ids=lambda path: path.stem)
def test_a_configuration_loads_and_is_named_as_its_file(path: Path) -> None:
    assert load_audit(path).name == path.stem


@pytest.mark.parametrize("path", ABLATIONS, ids=lambda path: path.stem)
def test_an_ablation_loads_with_all_its_rows(path: Path) -> None:
    assert load_ablation(path).rows


@pytest.mark.parametrize("path", [*AUDITS, *ABLATIONS], ids=lambda path: path.stem)
def test_a_header_says_command_time_and_result(path: Path) -> None:
    header = path.read_text().split("\naudit:")[0]
    assert f"diffaudit {'ablate' if path in ABLATIONS else ''}" in header
    for word in ("# Command:", "# Takes:", "# Expect:"):
        assert word in header
    assert "TAKES" not in header
    assert "EXPECT" not in header


@pytest.mark.parametrize("path", COMPLETE, ids=lambda path: path.stem)
def test_a_preset_is_complete(path: Path) -> None:
    """What the resolved settings hold is in the file, but for keys that only another kind reads."""
    given, resolved = yaml.safe_load(path.read_text()), yaml.safe_load(dump_settings(load_audit(path)))
    by_words = resolved.get("embedding", {}).get("kind") == "textual_inversion"
    unread = {"embedding.explained_variance" if by_words else "embedding.words"}
    assert not set(missing(given, resolved)) - OF_OTHER_KINDS - unread


def test_the_default_is_the_combined_method() -> None:
    """`quick` says it in few words, `combined` in all."""
    few, all_words = (load_audit(CONFIGS / f"{name}.yaml").model_dump(mode="json") for name in ("quick", "combined"))
    for settings in (few, all_words):
        for stage in settings["stages"]:
            stage["weights"] = {group: weight for group, weight in stage["weights"].items() if weight}
    differing = {key for key in few if few[key] != all_words[key]}
    assert differing == {"name", "schemes"}


def lambdas(*values: float) -> dict[str, float]:
    """Weights in the order of the published table."""
    return dict(zip(("prior", "cls", "id", "perc", "reg"), values, strict=True))


EMBED = (("embedding",), "label", lambdas(0.3, 1.0, 1.0, 0.5, 0.01))
ADAPT = (("lora", "embedding"), "label", lambdas(1.5, 1.0, 0.8, 1.0, 0.01))
PROTECT = (("lora", "embedding"), "label", lambdas(2.0, 0.5, 0.8, 1.0, 0.01))
RELEASE = (("lora", "embedding"), "label", lambdas(0.5, 1.5, 0.8, 1.0, 0.01))
MEET = (("lora", "projector"), "image", lambdas(1.0, 0.0, 0.0, 1.0, 0.0))
LED_OVER = (("lora", "embedding"), "hybrid", None)
"""Of the stages: what trains, whose identity is shown, and the weights where the published table gives them."""


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("two_stage", [EMBED, ADAPT]),
        ("fast", [EMBED, ADAPT]),
        ("balanced", [EMBED, ADAPT]),
        ("protect_release", [EMBED, PROTECT, RELEASE]),
        ("warmup", [MEET, LED_OVER, ADAPT]),
    ],
)
def test_stages_weigh_from_their_first_step_to_their_last_as_the_table_says(name: str, table: list[Any]) -> None:
    settings = load_settings(CONFIGS / f"{name}.yaml")
    plans, weighting = build_stages(settings), build_weighting(settings)
    assert [(plan.trains, plan.condition) for plan in plans] == [(trains, whose) for trains, whose, _ in table]
    for plan, (_, _, weights) in zip(plans, table, strict=True):
        for step in (plan.first_step, plan.first_step + plan.steps - 1):
            assert weights in (None, weighting.weights(step))


@pytest.mark.parametrize("name", ["uncertainty", "automatic", "complete"])
def test_all_weights_but_the_regularisers_are_learned_from_one_half_on(name: str) -> None:
    settings = load_settings(CONFIGS / f"{name}.yaml")
    weighting = build_weighting(settings)
    assert weighting.learned_groups() == {"prior", "cls", "id", "perc"}
    assert weighting.weights(0) == lambdas(0.5, 0.5, 0.5, 0.5, 0.01)
    assert isinstance(settings.weighting, UncertaintyWeights)
    assert settings.weighting.delta == 0.05


@pytest.mark.parametrize("name", ["protect_release", "complete"])
def test_a_quarter_of_the_adaptation_protects(name: str) -> None:
    embed, protect, release = load_settings(CONFIGS / f"{name}.yaml").stages
    assert protect.steps / (protect.steps + release.steps) == 0.25
    assert [stage.weights for stage in (embed, protect, release)] == [EMBED[2], PROTECT[2], RELEASE[2]]


def test_learned_weights_have_the_same_stages_and_more_steps() -> None:
    longer, shorter = (load_settings(CONFIGS / f"{name}.yaml").stages for name in ("uncertainty", "two_stage"))
    assert [stage.trains for stage in longer] == [stage.trains for stage in shorter]
    assert sum(stage.steps for stage in longer) > sum(stage.steps for stage in shorter)


def test_a_stage_that_says_nothing_moves_the_embedding_at_a_tenth_beside_the_adapters() -> None:
    """And the stages of no file are the table's."""
    assert [(stage.name, stage.weights) for stage in InversionSettings().stages] == [
        ("embed", EMBED[2]),
        ("adapt", ADAPT[2]),
    ]
    _, adapt = build_stages(InversionSettings())
    assert adapt.rates["embedding"] == pytest.approx(0.1 * adapt.rates["lora"])


def missing(given: Any, resolved: Any, above: str = "") -> list[str]:
    """Dotted keys of ``resolved`` that ``given`` lacks."""
    found = []
    for key, value in resolved.items():
        if key not in given:
            found.append(above + key)
        elif isinstance(value, dict) and isinstance(given[key], dict):
            found += missing(given[key], value, f"{above}{key}.")
    return found
