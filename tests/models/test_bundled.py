import hashlib
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffaudit.errors import InvalidSetting
from diffaudit.models.bundled import WEIGHTS, bundled_folder, fingerprint, load_network, save_network
from diffaudit.models.networks import build_network

MOST_BYTES = 40_000_000
CARD = {"architecture": "residual", "outputs": 4, "size": 64}


def test_what_is_kept_is_what_was_scored(tmp_path: Path) -> None:
    network = build_network("residual", 4)
    network(torch.rand(4, 3, 64, 64))  # moves the statistics of batch norm
    save_network(network, tmp_path / "model", CARD)
    again, card = load_network(tmp_path / "model")
    assert card == CARD
    images = torch.rand(2, 3, 64, 64)
    assert torch.equal(again(images), network.eval()(images))
    assert not again.training
    assert not any(parameter.requires_grad for parameter in again.parameters())
    assert {value.dtype for value in again.state_dict().values() if value.is_floating_point()} == {torch.float32}


def test_weights_lie_in_half_precision_within_its_rounding(tmp_path: Path) -> None:
    network = build_network("plain", 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    save_network(network, tmp_path, CARD | {"architecture": "plain", "outputs": 2})
    kept = load_file(tmp_path / "model.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float16}
    for name, value in before.items():
        torch.testing.assert_close(kept[name].float(), value, rtol=2**-11, atol=1e-7)


def test_folders_without_a_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"card\.json.*diffaudit train"):
        load_network(tmp_path)
    (tmp_path / "card.json").write_text(json.dumps(CARD))
    with pytest.raises(InvalidSetting, match=r"model\.safetensors"):
        load_network(tmp_path)


def test_fingerprints_are_those_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.safetensors").write_bytes(b"two")
    (tmp_path / "a.safetensors").write_bytes(b"one")
    (tmp_path / "notes.txt").write_bytes(b"ignored")
    assert fingerprint(tmp_path / "a.safetensors") == hashlib.sha256(b"one").hexdigest()
    assert fingerprint(tmp_path) == hashlib.sha256(b"onetwo").hexdigest()


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="be a bundled model"):
        bundled_folder("no-such-model")


@pytest.mark.parametrize("card", sorted(WEIGHTS.glob("*/card.json")), ids=lambda path: str(path.parent.name))
def test_bundled_networks_load(card: Path) -> None:
    folder = bundled_folder(card.parent.name)
    if not (folder / "model.safetensors").exists():
        pytest.skip(f"{folder.name} is a pipeline, not a network")
    network, described = load_network(folder)
    images = torch.rand(1, 3, described["size"], described["size"])
    assert network(images).shape == (1, described["outputs"])


def test_bundled_files_stay_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) < MOST_BYTES
