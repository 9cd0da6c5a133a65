"""From recorded attention to what terms compare: mean over heads, sum over a label's tokens, one grid, shares of two.

Maps are probabilities over tokens already. A second softmax over them, as it circulates, makes 30 tokens nearly equal
whatever the model looks at; nothing here takes one.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_matrix, require_rows

FLOOR = 1e-7
"""Probabilities and sums of them are kept above this where they are divided by or their logarithm is taken."""


def draw_heads(count: int, generator: torch.Generator, *, keep: float = 0.9) -> Tensor:
    """Draw which of ``count`` heads take part in an iteration, each with probability ``keep``, never none.

    Shape ``-> (count,)`` boolean, on the generator's device. Where all would be dropped, one of them stays, each as
    likely as another.

    Raises:
        InvalidSetting: for fewer than one head, a probability outside (0, 1].

    >>> draw_heads(4, torch.Generator().manual_seed(1), keep=0.5)
    tensor([False,  True,  True, False])
    """
    if count < 1:
        raise InvalidSetting("count", "be at least 1", count)
    if not 0 < keep <= 1:
        raise InvalidSetting("keep", "be a probability in (0, 1]", keep)
    chance = torch.rand(count, generator=generator, device=generator.device)
    return (chance < keep) | ((chance >= keep).all() & (chance == chance.amin()))


def head_mean(maps: Tensor, weights: Sequence[float] | None = None, kept: Tensor | None = None) -> Tensor:
    r"""Return the mean over the heads that are kept, weighted.

    .. math:: \frac{\sum_h k_h w_h A_{b,h}}{\sum_h k_h w_h}

    Shapes ``(B, h, HW, T), (h,) -> (B, HW, T)``; probabilities stay probabilities. ``weights`` None counts every head
    once; ``kept`` is boolean, as :func:`draw_heads` draws it, and None keeps all.

    Raises:
        InvalidSetting: for other shapes, for weights that are not finite numbers above 0.

    >>> maps = torch.tensor([0.0, 0.4, 0.8]).view(1, 3, 1, 1)
    >>> head_mean(maps).item(), head_mean(maps, (1, 1, 3), torch.tensor([True, False, True])).item()
    (0.4000..., 0.6000...)
    """
    if maps.ndim != 4 or maps.numel() == 0:
        raise InvalidSetting("maps", "be of shape (B, heads, HW, T)", tuple(maps.shape))
    heads = maps.shape[1]
    if weights is not None and not (len(weights) == heads and all(0 < one < math.inf for one in weights)):
        raise InvalidSetting("weights", f"hold one finite number above 0 a head, {heads} in all", tuple(weights))
    if kept is not None and (kept.shape != (heads,) or kept.dtype != torch.bool):
        raise InvalidSetting("kept", f"be one boolean a head, {heads} in all", (*kept.shape, kept.dtype))
    shares = maps.new_ones(heads) if weights is None else maps.new_tensor(weights)
    if kept is not None:
        shares = shares * kept.to(shares)
    return torch.einsum("bhst,h->bst", maps, shares / shares.sum())


def label_map(maps: Tensor, tokens: Tensor) -> Tensor:
    r"""Return what each place gives to all tokens of its image's label together.

    .. math:: A_{b,s} = \sum_{t \in \text{label}_b} A_{b,s,t}

    Shapes ``(B, HW, T), (B, T) -> (B, HW)``; range [0, 1]. ``tokens`` is boolean, as :func:`.token_mask` makes it. The
    first token alone, as it circulates, is part of a label that the tokenizer splits.

    Raises:
        InvalidSetting: for shapes that do not fit.

    >>> maps = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]]])
    >>> label_map(maps, torch.tensor([[False, True, True]]))
    tensor([[0.3000, 0.9000]])
    """
    require_tokens(maps, tokens)
    return torch.einsum("bst,bt->bs", maps, tokens.to(maps))


def label_shares(true: Tensor, distractor: Tensor) -> Tensor:
    r"""Return what the true label gets of what each place gives to the two labels.

    .. math:: \frac{A^{\text{true}}_{b,s}}{A^{\text{true}}_{b,s} + A^{\text{distractor}}_{b,s}}

    Shapes ``(B, HW), (B, HW) -> (B, HW)``; range [0, 1]; the distractor's share is one minus it. Every further token of
    a prompt takes from both labels in proportion, so that this does not depend on the prompt's length, as
    the maps themselves do. A place that gives nothing to either is shared evenly.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> label_shares(torch.tensor([[0.03, 0.0]]), torch.tensor([[0.01, 0.0]]))
    tensor([[0.7500, 0.5000]])
    """
    require_rows("true", true, distractor, "distractor")
    return (true + FLOOR) / (true + distractor + 2 * FLOOR)


def resized_map(maps: Tensor, side: int) -> Tensor:
    """Return square maps on a grid of ``side`` by ``side`` places: by area where it shrinks, bilinear where it grows.

    Shapes ``(B, HW) -> (B, side * side)``. Values keep their meaning, what *one place* gives, so that the mean over
    places stays (exactly where one side divides the other) and a sum over places does not. Maps of several layers must
    come to one grid before they are averaged.

    Raises:
        InvalidSetting: for a map that is no square, a side below 1.

    >>> resized_map(torch.tensor([[0.0, 0.4, 0.8, 1.2]]), 1)
    tensor([[0.6000]])
    """
    require_matrix("maps", maps)
    if side < 1:
        raise InvalidSetting("side", "be at least 1", side)
    found = math.isqrt(maps.shape[1])
    if found**2 != maps.shape[1]:
        raise InvalidSetting("maps", "have a square number of places", maps.shape[1])
    return resized_picture(maps.unflatten(1, (1, found, found)), side).flatten(1)


def resized_picture(maps: Tensor, side: int) -> Tensor:
    """Return ``(B, C, h, w)`` as ``(B, C, side, side)``, as :func:`resized_map` does."""
    if maps.shape[-2:] == (side, side):
        return maps
    if min(maps.shape[-2:]) >= side:
        return F.interpolate(maps, (side, side), mode="area")
    return F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    r"""Return the mean over places, each counting as much as the mask says.

    .. math:: \frac{\sum_s M_{b,s} v_{b,s}}{\sum_s M_{b,s}}

    Shapes ``(B, HW), (B, HW) -> (B,)``; no mask counts all places once, and a mask of zeros gives 0.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> masked_mean(torch.tensor([[1.0, 3.0]]), torch.tensor([[0.5, 0.0]]))
    tensor([1.])
    """
    if mask is None:
        return values.mean(1)
    require_rows("mask", mask, values, "values")
    return (mask * values).sum(1) / mask.sum(1).clamp(min=FLOOR)


def require_tokens(maps: Tensor, tokens: Tensor) -> None:
    """Refuse other than one boolean for each image and token of ``maps (B, HW, T)``."""
    if maps.ndim != 3 or maps.numel() == 0:
        raise InvalidSetting("maps", "be averaged over heads, of shape (B, HW, T)", tuple(maps.shape))
    expected = (maps.shape[0], maps.shape[2])
    if tokens.shape != expected or tokens.dtype != torch.bool:
        raise InvalidSetting("tokens", f"say True or False of every token, {expected}", (*tokens.shape, tokens.dtype))
