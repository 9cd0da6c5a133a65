"""Every shipped configuration: it loads, names its command, and says everything that it leaves to nobody."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from diffaudit.settings import dump_settings, load_audit
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


def missing(given: Any, resolved: Any, above: str = "") -> list[str]:
    """Dotted keys of ``resolved`` that ``given`` lacks."""
    found = []
    for key, value in resolved.items():
        if key not in given:
            found.append(above + key)
        elif isinstance(value, dict) and isinstance(given[key], dict):
            found += missing(given[key], value, f"{above}{key}.")
    return found
