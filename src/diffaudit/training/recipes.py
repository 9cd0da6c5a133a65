"""The recipes of the bundled models: what each is, from which seed, how long and how fast it trains. Data alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from diffaudit.training.loop import Schedule

SIZE = 64
EMBEDDING = 128
PER_IDENTITY = 16
PER_LABEL = 400
"""How many people every label is shown on; where fewer have it they come again, in other photographs."""


@dataclass(frozen=True)
class Recipe:
    """How one bundled model is made: what it is, from which seed, how long and how fast it trains."""

    kind: str
    architecture: str
    seed: int
    batch: int
    schedule: Schedule
    pool_seed: int = 111
    pool_per_identity: int = PER_IDENTITY
    erase: float = 0.0
    smoothing: float = 0.0
    shipped: bool = True
    """False for what only goes into another model."""


def _schedule(steps: int, rate: float = 2e-3, average: float = 0.998, **more: float) -> Schedule:
    return Schedule(steps=steps, rate=rate, average=average, **{"weight_decay": 0.05, **more})  # type: ignore[arg-type]


def _words(architecture: str, seed: int, steps: int) -> Recipe:
    """A small network that reads the words for hair, from pictures of its own, six of a person."""
    return Recipe("words", architecture, seed, 32, _schedule(steps, 4e-3, weight_decay=0.01), 100 * seed, 6)


RECIPES: Mapping[str, Recipe] = {
    "autoencoder": Recipe(
        "autoencoder", "unshuffle", 1, 32, _schedule(8000, average=0.998, weight_decay=0.01), shipped=False
    ),
    "decoder": Recipe(
        "decoder", "unshuffle", 2, 32, _schedule(3000, 1e-3, average=0.998, weight_decay=0.01), shipped=False
    ),
    "identity": Recipe("encoder", "residual", 11, 32, _schedule(3000)),
    "target": Recipe("classifier", "residual", 21, 32, _schedule(1500), 1001, 48),
    "attributes": Recipe("attributes", "plain", 31, 32, _schedule(4000)),
    "judge-plain": Recipe("classifier", "plain", 22, 32, _schedule(2000), 2002, 96, 0.3, 0.05),
    "judge-depthwise": Recipe("classifier", "depthwise", 23, 32, _schedule(1600), 3003, 96, 0.3, 0.05),
    "judge-identity": Recipe("encoder", "depthwise", 12, 32, _schedule(2000), erase=0.3),
    "judge-factors": Recipe("factors", "plain", 32, 32, _schedule(4000)),
    "hair-residual": _words("small-residual", 41, 5000),
    "hair-plain": _words("small-plain", 42, 5000),
    "hair-squeeze": _words("squeeze", 43, 5000),
    "hair-depthwise": _words("small-depthwise", 44, 6000),
    "hair-mixer": _words("mixer", 45, 14000),
    "prior": Recipe("prior", "unet", 5, 32, _schedule(16600, 1.5e-3, 0.999, warmup=300, weight_decay=0.01)),
}
BUNDLED = tuple(RECIPES)
"""Every model in the order in which they are made. The prior comes last: it needs the autoencoder and the identity
encoder, takes the decoder, and is scored by the judges."""
