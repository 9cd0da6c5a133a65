"""The families of networks behind the bundled classifiers, encoders and estimators.

Each is ``features (B, 3, 64, 64) in [0, 1] -> (B, P)`` followed by one linear ``head``. Several families, because an
audit judges with other architectures than it attacks. The last 4 x 4 map is flattened, not averaged: where on an
aligned face something is found is most of what it says (as in ArcFace's networks, Deng et al. 2019, 1801.07698).

Small members, of about 9,000 parameters, answer what a glance answers, such as the colour of hair. They end at 8 x 8,
fine enough for a map of what they looked at, and average its upper and its lower half.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting

FEATURES = 256
SPACE = 4 * 4
SMALL_FEATURES = 20


class Network(nn.Module, ABC):
    """A trunk and a linear head. ``forward`` returns ``(B, outputs)``, ``features`` the ``(B, P)`` before the head."""

    neck: nn.Module
    head: nn.Linear

    @abstractmethod
    def maps(self, images: Tensor) -> list[Tensor]:
        """Feature maps of every stage, from fine to coarse, each ``(B, C_l, H_l, W_l)``."""

    def features(self, images: Tensor) -> Tensor:
        """Penultimate features ``(B, P)``."""
        hidden: Tensor = self.neck(self.maps(images)[-1])
        return hidden

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.features(images))
        return outputs


class _Staged(Network):
    """A stem and stages in sequence; subclasses say what a stage is made of."""

    def __init__(
        self, stem: nn.Module, stages: Sequence[nn.Module], width: int, outputs: int, *, small: bool = False
    ) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        halves = nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten())
        look, places, features = (halves, 2, SMALL_FEATURES) if small else (nn.Flatten(), SPACE, FEATURES)
        self.neck = nn.Sequential(look, nn.Linear(places * width, features), nn.LayerNorm(features), nn.SiLU())
        self.head = nn.Linear(features, outputs)

    def maps(self, images: Tensor) -> list[Tensor]:
        hidden = self.stem(2 * images - 1)
        maps = []
        for stage in self.stages:
            hidden = stage(hidden)
            maps.append(hidden)
        return maps


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm and a shortcut (He et al., Deep Residual Learning, 2016, 1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


class ResidualNetwork(_Staged):
    """Residual network with batch norm: the target, and the attacker's identity encoder."""

    def __init__(self, outputs: int, widths: Sequence[int] = (32, 64, 128, 192), *, small: bool = False) -> None:
        first = widths[0]
        stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        pairs = pairwise(widths)
        super().__init__(stem, [_BasicBlock(a, b, 2) for a, b in pairs], widths[-1], outputs, small=small)


class PlainNetwork(_Staged):
    """Plain convolutions with group norm, SiLU and max-pooling: a judge, and the attribute estimator."""

    def __init__(self, outputs: int, widths: Sequence[int] = (24, 48, 96, 160), *, small: bool = False) -> None:
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.SiLU())
        stages = [nn.Sequential(*_convolution(a, b), nn.MaxPool2d(2), *_convolution(b, b)) for a, b in pairwise(widths)]
        super().__init__(stem, stages, widths[-1], outputs, small=small)


def _convolution(inputs: int, outputs: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inputs, outputs, 3, padding=1), nn.GroupNorm(8, outputs), nn.SiLU()


class _DepthwiseBlock(nn.Module):
    """Depthwise 5 x 5, norm, wide GELU layer (Liu et al., A ConvNet for the 2020s, 2022, 2201.03545)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels),
            nn.GroupNorm(1, channels),
            nn.Conv2d(channels, 3 * channels, 1),
            nn.GELU(),
            nn.Conv2d(3 * channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        hidden: Tensor = x + self.body(x)
        return hidden


class DepthwiseNetwork(_Staged):
    """Patches and depthwise convolutions: the other judge, and the judges' identity encoder."""

    def __init__(
        self, outputs: int, widths: Sequence[int] = (64, 128, 192), blocks: int = 2, *, small: bool = False
    ) -> None:
        norm = nn.Identity if small else nn.GroupNorm  # without it a small network sees colours better
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), norm(1, widths[0]))
        stages = []
        for index, width in enumerate(widths):
            narrow = widths[max(0, index - 1)]
            down = (norm(1, narrow), nn.Conv2d(narrow, width, 2, stride=2)) if index else ()
            stages.append(nn.Sequential(*down, *(_DepthwiseBlock(width) for _ in range(blocks))))
        super().__init__(stem, stages, widths[-1], outputs, small=small)


class _FireBlock(nn.Module):
    """A squeeze to few channels, then 1 x 1 and 3 x 3 side by side (Iandola et al., SqueezeNet, 2016, 1602.07360)."""

    def __init__(self, inputs: int, squeezed: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(inputs, squeezed, 1, bias=False), nn.BatchNorm2d(squeezed), nn.ReLU())
        self.point = nn.Conv2d(squeezed, outputs // 2, 1)
        self.around = nn.Conv2d(squeezed, outputs // 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        return nn.functional.relu(torch.cat([self.point(squeezed), self.around(squeezed)], dim=1))


class SqueezeNetwork(_Staged):
    """Fire modules and max-pooling, only small: a surrogate."""

    def __init__(self, outputs: int, widths: Sequence[int] = (16, 24, 32)) -> None:
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 3, stride=2, padding=1), nn.ReLU())
        stages = [
            nn.Sequential(nn.MaxPool2d(2), _FireBlock(a, b // 3, b), _FireBlock(b, b // 3, b))
            for a, b in pairwise(widths)
        ]
        super().__init__(stem, stages, widths[-1], outputs, small=True)


class _MixerBlock(nn.Module):
    """One layer across places, one across channels (Tolstikhin et al., MLP-Mixer, 2021, 2105.01601)."""

    def __init__(self, channels: int, places: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.places = nn.Sequential(nn.Linear(places, hidden), nn.GELU(), nn.Linear(hidden, places))
        self.channels = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.places(self.norm(tokens).transpose(1, 2)).transpose(1, 2)
        tokens = tokens + self.channels(tokens)
        return tokens.transpose(1, 2).reshape(x.shape)


class MixerNetwork(_Staged):
    """Patches of 8 x 8 and layers across all of them, no convolution beyond, only small: a held-out model."""

    def __init__(self, outputs: int, width: int = 16, hidden: int = 16, blocks: int = 2) -> None:
        stem = nn.Conv2d(3, width, 8, stride=8)
        stages = [_MixerBlock(width, 8 * 8, hidden) for _ in range(blocks)]
        super().__init__(stem, stages, width, outputs, small=True)


ARCHITECTURES: dict[str, Callable[[int], Network]] = {
    "residual": ResidualNetwork,
    "plain": PlainNetwork,
    "depthwise": DepthwiseNetwork,
    "small-residual": partial(ResidualNetwork, widths=(8, 12, 18), small=True),
    "small-plain": partial(PlainNetwork, widths=(8, 16, 16), small=True),
    "small-depthwise": partial(DepthwiseNetwork, widths=(16, 24), blocks=1, small=True),
    "squeeze": SqueezeNetwork,
    "mixer": MixerNetwork,
}


def build_network(architecture: str, outputs: int) -> Network:
    """A fresh network of the named family.

    >>> build_network("plain", 10).head.out_features
    10

    Raises:
        InvalidSetting: the family is none of ours.
    """
    if architecture not in ARCHITECTURES:
        raise InvalidSetting("architecture", f"be one of {', '.join(ARCHITECTURES)}", architecture)
    return ARCHITECTURES[architecture](outputs)
