"""Remakes the bundled models: ``diffaudit train all``. Every recipe is a few lines of data; every model gets a card."""

from collections.abc import Callable, Sequence
from pathlib import Path

from diffaudit.errors import InvalidSetting
from diffaudit.events import Event
from diffaudit.training import makers
from diffaudit.training.recipes import BUNDLED
from diffaudit.training.workshop import Workshop


def train_bundle(
    names: Sequence[str], output: Path, *, quick: bool = False, on_event: Callable[[Event], None] | None = None
) -> None:
    """Makes the models ``names`` (``all``: every one) in ``output``; those that are finished already are left alone.

    A stopped training goes on from its last checkpoint, and one that had come to its end is only scored and saved.
    ``quick`` trains for a few steps only: a test of the machinery.

    Raises:
        InvalidSetting: a name is not in :data:`~diffaudit.training.recipes.BUNDLED`.
    """
    wanted = BUNDLED if "all" in names else tuple(names)
    for name in wanted:
        if name not in BUNDLED:
            raise InvalidSetting("model", f"be `all` or one of {', '.join(BUNDLED)}", name)
    shop = Workshop(output, quick, on_event or (lambda event: None))
    for name in BUNDLED:
        if name in wanted and shop.finished(name) is None:
            makers.make(name, shop)
