"""Models as folders: ``model.safetensors`` and ``card.json``, bundled or written by `diffaudit train`."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from diffaudit.errors import InvalidSetting
from diffaudit.models.networks import Network, build_network

WEIGHTS = Path(__file__).with_name("weights")


def bundled_folder(name: str, *, key: str = "name") -> Path:
    """The folder of a bundled model; ``key`` is what a message calls it.

    Raises:
        InvalidSetting: no model of that name is bundled.
    """
    folder = WEIGHTS / name
    if not (folder / "card.json").exists():
        names = ", ".join(sorted(path.parent.name for path in WEIGHTS.glob("*/card.json"))) or "none at all"
        raise InvalidSetting(
            key, f"be a bundled model: {names}", name, "Bundled models are remade by `diffaudit train all`."
        )
    return folder


def load_network(folder: Path) -> tuple[Network, dict[str, Any]]:
    """A network in eval mode, weights in float32, and its card.

    Raises:
        InvalidSetting: the folder lacks ``card.json`` or ``model.safetensors``.
    """
    require_network(folder)
    card = json.loads((folder / "card.json").read_text())
    network = build_network(card["architecture"], card["outputs"])
    network.load_state_dict({name: _widened(value) for name, value in load_file(folder / "model.safetensors").items()})
    return network.eval().requires_grad_(False), card


def require_network(folder: Path, *, key: str = "folder") -> None:
    """Refuses a folder, which a message calls ``key``, that holds no network of ours.

    Raises:
        InvalidSetting: the folder lacks ``card.json`` or ``model.safetensors``.
    """
    for name in ("card.json", "model.safetensors"):
        if not (folder / name).exists():
            raise InvalidSetting(key, f"hold a {name}", str(folder), "Train the model first: diffaudit train.")


def save_network(network: Network, folder: Path, card: dict[str, Any]) -> None:
    """Writes the weights in float16 and the card beside them.

    The network is rounded too, so that what is scored is what is kept.
    """
    folder.mkdir(parents=True, exist_ok=True)
    halves = {name: _narrowed(value).contiguous() for name, value in network.state_dict().items()}
    network.load_state_dict({name: _widened(value) for name, value in halves.items()})
    save_file(halves, folder / "model.safetensors")
    write_card(folder, card)


def write_card(folder: Path, card: dict[str, Any]) -> None:
    """Writes ``card.json``: how a model was made and what it scores."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "card.json").write_text(json.dumps(card, indent=2) + "\n")


def fingerprint(path: Path) -> str:
    """SHA-256 of a file, or of all weight files of a folder in order of their names."""
    files = [path] if path.is_file() else sorted(path.rglob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _narrowed(value: torch.Tensor) -> torch.Tensor:
    return value.detach().half() if value.is_floating_point() else value.detach()


def _widened(value: torch.Tensor) -> torch.Tensor:
    return value.float() if value.is_floating_point() else value
