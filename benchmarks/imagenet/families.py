"""The classifiers of the ImageNet benchmark by family, and the three splits that hold one family out each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MODELS: Mapping[str, tuple[str, int]] = {
    "efficientnet_lite0": ("efficientnet_lite0.pt2", 224),
    "mobilenet_v2": ("mobilenet_v2_100_224_quant.pt2", 224),
    "mobilenet_v1_050": ("mobilenet_v1_050_160.pt2", 160),
    "mobilenet_v1_025_float": ("mobilenet_v1_025_224_float.pt2", 224),
    "mobilenet_v1_025": ("mobilenet_v1_025_128.pt2", 128),
    "squeezenet1_1": ("squeezenet1_1.pt2", 227),
    "squeezenet1_0": ("squeezenet1_0.pt2", 227),
}
"""File and side in pixels of each."""

FAMILIES: Mapping[str, tuple[str, ...]] = {
    "mbconv": ("efficientnet_lite0", "mobilenet_v2"),
    "mobilenet-v1": ("mobilenet_v1_050", "mobilenet_v1_025_float", "mobilenet_v1_025"),
    "squeezenet": ("squeezenet1_1", "squeezenet1_0"),
}
"""Networks of one family are no independent judges of each other."""


@dataclass(frozen=True)
class Split:
    """Three surrogates of two families; the third family is held out, and relatives of surrogates are siblings."""

    heldout: str
    surrogates: tuple[str, str, str]

    @property
    def name(self) -> str:
        """What it does without."""
        return f"without-{self.heldout}"

    def settings(self, folder: str) -> dict[str, Any]:
        """Dotted keys to values, with the models' files in ``folder``."""
        seen = set(self.surrogates)
        siblings = [
            name for family, names in FAMILIES.items() if family != self.heldout for name in names if name not in seen
        ]
        return {
            "surrogates": _models(folder, self.surrogates),
            "judging.heldout": _models(folder, FAMILIES[self.heldout]),
            "judging.siblings": _models(folder, siblings),
        }


SPLITS = (
    Split("squeezenet", ("efficientnet_lite0", "mobilenet_v2", "mobilenet_v1_050")),
    Split("mobilenet-v1", ("efficientnet_lite0", "mobilenet_v2", "squeezenet1_1")),
    Split("mbconv", ("mobilenet_v1_050", "mobilenet_v1_025_float", "squeezenet1_1")),
)
"""The first is that of `configs/imagenet.yaml`."""


def _models(folder: str, names: tuple[str, ...] | list[str]) -> dict[str, dict[str, Any]]:
    return {
        name: {"kind": "pt2", "path": f"{folder}/{MODELS[name][0]}", "size": MODELS[name][1], "allow_code": False}
        for name in names
    }
