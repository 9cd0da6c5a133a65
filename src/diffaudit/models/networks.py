"""The three families of small networks behind the bundled classifiers, encoders and estimators.

Each is ``features (B, 3, 64, 64) in [0, 1] -> (B, P)`` followed by one linear ``head``. Three families, because an
audit judges with other architectures than it attacks. The last 4 x 4 map is flattened, not averaged: where on an
aligned face something is found is most of what it says (as in ArcFace's networks, Deng et al. 2019, 1801.07698).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from diffaudit.errors import InvalidSetting

FEATURES = 256
SPACE = 4 * 4


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

    def __init__(self, stem: nn.Module, stages: Sequence[nn.Module], width: int, outputs: int) -> None:
        super().__init__()
        self.stem = stem
        self.stages = nn.ModuleList(stages)
        self.neck = nn.Sequential(nn.Flatten(), nn.Linear(SPACE * width, FEATURES), nn.LayerNorm(FEATURES), nn.SiLU())
        self.head = nn.Linear(FEATURES, outputs)

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

    def __init__(self, outputs: int, widths: Sequence[int] = (32, 64, 128, 192)) -> None:
        first = widths[0]
        stem = nn.Sequential(
            nn.PixelUnshuffle(2), nn.Conv2d(12, first, 3, padding=1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        pairs = pairwise(widths)
        super().__init__(stem, [_BasicBlock(a, b, 2) for a, b in pairs], widths[-1], outputs)


class PlainNetwork(_Staged):
    """Plain convolutions with group norm, SiLU and max-pooling: a judge, and the attribute estimator."""

    def __init__(self, outputs: int, widths: Sequence[int] = (24, 48, 96, 160)) -> None:
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=2, padding=1), nn.SiLU())
        stages = [nn.Sequential(*_convolution(a, b), nn.MaxPool2d(2), *_convolution(b, b)) for a, b in pairwise(widths)]
        super().__init__(stem, stages, widths[-1], outputs)


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

    def __init__(self, outputs: int, widths: Sequence[int] = (64, 128, 192), blocks: int = 2) -> None:
        stem = nn.Sequential(nn.Conv2d(3, widths[0], 4, stride=4), nn.GroupNorm(1, widths[0]))
        stages = []
        for index, width in enumerate(widths):
            narrow = widths[max(0, index - 1)]
            down = (nn.GroupNorm(1, narrow), nn.Conv2d(narrow, width, 2, stride=2)) if index else ()
            stages.append(nn.Sequential(*down, *(_DepthwiseBlock(width) for _ in range(blocks))))
        super().__init__(stem, stages, widths[-1], outputs)


ARCHITECTURES: dict[str, Callable[[int], Network]] = {
    "residual": ResidualNetwork,
    "plain": PlainNetwork,
    "depthwise": DepthwiseNetwork,
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
