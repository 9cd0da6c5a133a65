"""Rival classes: nearest by the words of their names, or the surrogates' second choice; never one of the same name."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import TextConditioner
from diffaudit.models.prompts import label_tokens

AT_ONCE = 64
"""Names that go through a text encoder together."""


def rivals_by(likeness: Tensor, labels: Tensor, names: Sequence[str]) -> Tensor:
    """Return the likeliest class of another name for each of ``labels (B,)``; ``likeness (B, C) -> (B,)``.

    Neither the class itself nor another of the same name, as the bird and the machine that ImageNet both calls crane:
    no prompt could tell the two apart. Case does not count.

    Raises:
        InvalidSetting: for classes that all bear one name.

    >>> rivals_by(torch.tensor([[0.5, 0.4, 0.1]]), torch.tensor([0]), ["crane", "Crane", "fox"])
    tensor([2])
    """
    plain = [name.casefold() for name in names]
    if len(set(plain)) < 2:
        raise InvalidSetting("classes", "have different names where a distractor is chosen", sorted(set(plain)))
    numbers = {name: number for number, name in enumerate(dict.fromkeys(plain))}
    known = torch.tensor([numbers[name] for name in plain], device=likeness.device)
    return likeness.masked_fill(known[labels][:, None] == known, -torch.inf).argmax(1)


@torch.no_grad()
def nearest_names(text: TextConditioner, names: Sequence[str]) -> Tensor:
    """Return the rival of every class: the other name at the smallest angle to its own; ``(C,)``.

    Names are encoded by themselves, without a template, and each is the mean of its own tokens' embeddings: start, end
    and padding are the same for all names, and many.

    Raises:
        InvalidSetting: for a name of words that the tokenizer does not know, for classes that all bear one name.
    """
    parts = [names[start : start + AT_ONCE] for start in range(0, len(names), AT_ONCE)]
    units = nn.functional.normalize(torch.cat([_pooled(text, part) for part in parts]), dim=1)
    return rivals_by(units @ units.T, torch.arange(len(names), device=units.device), names)


def _pooled(text: TextConditioner, names: Sequence[str]) -> Tensor:
    """``(N, d)``: the mean embedding of each name's own tokens."""
    found = text(names)
    rows = [
        row[list(label_tokens(text.tokenizer, name, name, length=text.length))].mean(0)
        for name, row in zip(names, found, strict=True)
    ]
    return torch.stack(rows)
