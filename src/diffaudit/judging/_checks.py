"""What the judging functions ask of their tensors, asked at the door."""

from __future__ import annotations

from torch import Tensor


class TooFewSamplesError(ValueError):
    """A statistic was asked of fewer samples than it needs; the message says which, how many and what to do."""


def require_samples(statistic: str, features: Tensor, references: Tensor, *, least: int, advice: str) -> None:
    """Refuse what is not two matrices of features of one encoder with at least ``least`` rows each."""
    require_rows("features", features)
    require_rows("references", references, columns=features.shape[1])
    for name, sample in (("features", features), ("references", references)):
        if len(sample) < least:
            raise TooFewSamplesError(
                f"`{name}` should have at least {least} rows for the {statistic}. Found {len(sample)}. {advice}"
            )


def require_rows(name: str, tensor: Tensor, *, columns: int | None = None) -> None:
    """Refuse what is not a finite floating matrix ``(rows, columns)`` with at least one row."""
    if tensor.ndim != 2 or not tensor.is_floating_point():
        raise ValueError(
            f"`{name}` should be a floating matrix, one row per image. "
            f"Found shape {tuple(tensor.shape)} of {tensor.dtype}."
        )
    if len(tensor) == 0:
        raise ValueError(f"`{name}` should hold at least one row. Found none. Check which images were selected.")
    if columns is not None and tensor.shape[1] != columns:
        raise ValueError(f"`{name}` should have {columns} columns, as what it is compared to. Found {tensor.shape[1]}.")
    require_finite(name, tensor)


def require_finite(name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity, which would pass through comparisons as if they were findings."""
    bad = (~tensor.isfinite()).sum().item()
    if bad:
        raise ValueError(
            f"`{name}` should hold finite numbers. Found {bad} that are not. "
            "Check the model and the images it was given."
        )


def require_labels(name: str, labels: Tensor, rows: int) -> None:
    """Refuse what is not one integer label per row."""
    if labels.shape != (rows,) or labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"`{name}` should be one integer per image, {rows} in all. "
            f"Found shape {tuple(labels.shape)} of {labels.dtype}."
        )
