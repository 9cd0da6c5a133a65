"""What the terms ask of a candidate and of their tensors, asked before any work and without waiting for a device."""

import math
from collections.abc import Sequence

from torch import Tensor

from diffaudit.errors import InvalidSetting


def required(name: str, value: Tensor | None, remedy: str) -> Tensor:
    """Return the candidate's field ``name``, refused where nobody filled it."""
    if value is None:
        raise InvalidSetting(name, "be filled in the candidate for this term", None, remedy)
    return value


def require_rows(name: str, tensor: Tensor, like: Tensor, other: str) -> None:
    """Refuse a tensor shaped otherwise than ``like``: broadcasting would mix images and still give a number."""
    if tensor.shape != like.shape or tensor.ndim < 2:
        raise InvalidSetting(
            name, f"have one row per image and the shape of `{other}`, {tuple(like.shape)}", tuple(tensor.shape)
        )


def require_matrix(name: str, tensor: Tensor) -> None:
    """Refuse what is not a floating matrix with at least one row and one column."""
    if tensor.ndim != 2 or tensor.numel() == 0 or not tensor.is_floating_point():
        raise InvalidSetting(
            name, "be a floating matrix with at least one row and one column", (*tensor.shape, tensor.dtype)
        )


def require_layers(first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
    """Refuse feature maps that are not layer by layer of one shape."""
    if len(first) != len(second) or not first:
        raise InvalidSetting("first", f"hold as many layers as `second`, {len(second)}, and at least one", len(first))
    for layer, (one, other) in enumerate(zip(first, second, strict=True)):
        require_rows(f"first[{layer}]", one, other, f"second[{layer}]")


def require_weight(name: str, value: float) -> None:
    """Refuse a weight that is negative, which would turn what it weighs round, or not finite."""
    if not (math.isfinite(value) and value >= 0):
        raise InvalidSetting(name, "be a finite number of at least 0", value)


def require_labels(labels: Tensor, rows: int) -> None:
    """Refuse other than one integer label per image."""
    if labels.shape != (rows,) or labels.is_floating_point():
        raise InvalidSetting("target", f"be one integer per image, {rows} in all", (*labels.shape, labels.dtype))
