"""A world small enough to attack in seconds: untrained models in the layout of trained ones, and settings for them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from diffaudit.data.captions import VOCABULARY
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.bundled import save_network
from diffaudit.models.networks import build_network
from diffaudit.records import PerturbationRecord
from diffaudit.settings import InversionSettings, check_settings
from diffaudit.training.prior import small_prior

CLASSES = 100
EMBEDDING = 16


def perturbed(
    image: int, votes: dict[str, str], *, row: str = "attack", label: int | None = None, **values: Any
) -> PerturbationRecord:
    """A record of picture ``image``; each model's two letters: right before (r, w), fooled after (f, k for kept)."""
    label = image if label is None else label
    found: dict[str, Any] = {
        "name": f"face-{image:04d}",
        "goal": None,
        "picture": f"images/{row}/{image:05d}.png",
        "clean_picture": f"images/clean/{image:05d}.png",
        "predicted": {name: label + (vote[1] == "f") for name, vote in votes.items()},
        "defended": {},
        "perceptual_distance": 0.25,
        "ssim": 0.75,
        "psnr": 30.0,
        "l2": 2.0,
        "linf": 0.125,
        "colour_difference": 3.0,
        "reconstruction_psnr": None,
        "iterations": None,
    }
    return PerturbationRecord(
        row=row,
        image=image,
        label=label,
        clean_hits={name: vote[0] == "r" for name, vote in votes.items()},
        fooled={name: vote[1] == "f" for name, vote in votes.items()},
        **(found | values),
    )


def _network(folder: Path, architecture: str, outputs: int, seed: int, **more: Any) -> None:
    torch.manual_seed(seed)
    network = build_network(architecture, outputs)
    save_network(network, folder, {"architecture": architecture, "outputs": outputs, "size": 64, **more})


@pytest.fixture(scope="session")
def tiny_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a target, judges, encoders, attributes and a prior, all untrained."""
    world = tmp_path_factory.mktemp("world")
    _network(world / "target", "residual", CLASSES, 1)
    _network(world / "identity", "plain", EMBEDDING, 2)
    _network(world / "attributes", "plain", 10, 3, spread=[1.0] * 10)
    _network(world / "judge-one", "plain", CLASSES, 4)
    _network(world / "judge-two", "depthwise", CLASSES, 5)
    _network(world / "judge-identity", "depthwise", EMBEDDING, 6)
    _network(world / "judge-factors", "plain", 23, 7)
    torch.manual_seed(8)
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 16, 16))
    prior = small_prior(
        autoencoder, vocabulary=VOCABULARY, embedding_dim=EMBEDDING, widths=(16, 32), cross_attention_dim=32
    )
    prior.save(world / "prior")
    return world


def _values(tiny_world: Path) -> dict[str, Any]:
    def trained(name: str) -> dict[str, str]:
        return {"kind": "trained", "folder": str(tiny_world / name)}

    weights = {"prior": 1.0, "cls": 1.0, "id": 1.0, "perc": 0.5, "reg": 0.1}
    stage = {"steps": 3, "batch": 2, "weights": weights}
    return {
        "audit": "inversion",
        "name": "tiny",
        "threads": 1,
        "classes": 2,
        "attack": {
            "target": trained("target"),
            "prior": {"kind": "diffusers", "location": str(tiny_world / "prior")},
            "encoder": trained("identity"),
            "attributes": trained("attributes"),
            "perceptual": trained("attributes"),
            "public": {"kind": "faces", "identities": 12},
        },
        "embedding": {"kind": "table", "anchor_images": 3},
        "image": {"mode": "rollout", "steps": 2, "gradient_steps": 1, "guidance_scale": 1.5},
        "lora": {"rank": 2, "alpha": 4},
        "stages": [
            {"name": "embed", "trains": ["embedding"], "rate": 0.05, **stage},
            {"name": "adapt", "trains": ["lora", "embedding"], "rate": 0.001, **stage},
        ],
        "sampling": {"steps": 2, "candidates": 3, "keep": 2, "batch": 4},
        "judging": {
            "classifiers": {"one": trained("judge-one"), "two": trained("judge-two")},
            "encoder": trained("judge-identity"),
            "factors": trained("judge-factors"),
            "private": {"kind": "faces", "per_identity": 2},
        },
        "checkpoint_every": 2,
    }


@pytest.fixture
def tiny_values(tiny_world: Path) -> dict[str, Any]:
    """Settings, as a mapping, of a two-stage run in the tiny world; the test's own to change."""
    return _values(tiny_world)


@pytest.fixture(scope="session")
def tiny_settings(tiny_world: Path) -> InversionSettings:
    """The same settings, checked."""
    return check_settings(_values(tiny_world))


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three people of four 8 x 8 pictures; the red channel numbers them."""
    for person in range(3):
        for number in range(4):
            path = tmp_path / "album" / f"p{person}" / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 10 * person + number, np.uint8)).save(path)
    return tmp_path / "album"
