"""Prompts that name labels, and where in a prompt's tokens a label stands."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting


def prompt_with(template: str, label: str, distractor: str | None = None) -> str:
    """``template`` with the label in place of ``{label}`` and the distractor, if any, beside it.

    The distractor takes the place of ``{distractor}`` or, in a template without it, follows the label after "and".

    >>> prompt_with("a photo of {label}", "cat"), prompt_with("a photo of {label} at night", "cat", "red fox")
    ('a photo of cat', 'a photo of cat and red fox at night')

    Raises:
        InvalidSetting: the template names no label, or a distractor that is not given.
    """
    if "{label}" not in template:
        raise InvalidSetting("template", "have the place of the label, {label}", template)
    if distractor is None and "{distractor}" in template:
        raise InvalidSetting("template", "have no {distractor} where none is given", template)
    if distractor is not None and "{distractor}" not in template:
        template = template.replace("{label}", "{label} and {distractor}")
    names = {"{label}": label, "{distractor}": distractor or ""}
    return re.sub(r"\{label\}|\{distractor\}", lambda place: names[place[0]], template)


def label_tokens(
    tokenizer: Any, prompt: str, label: str, *, beside: str | None = None, length: int | None = None
) -> tuple[int, ...]:
    """Positions of the tokens of ``label`` in ``prompt``, anywhere, as many as there are, in rising order.

    Found by the tokenizer's character offsets, as whole words and without regard to case: "red" is not found in
    "bored". A label that is named twice has the tokens of both; one that stands inside ``beside``, the other label of
    the prompt, is not meant there ("fox" in "a photo of fox and red fox"). Tokens of the start, the end and the padding
    belong to no label.

    Args:
        tokenizer: a fast tokenizer of transformers.
        prompt: the text, as it goes to the text encoder.
        label: what to find.
        beside: another label, inside which this one does not count.
        length: the text encoder's number of tokens, to which prompts are padded and cut; None: not padded, and cut at
            the tokenizer's own ``model_max_length``.

    >>> from diffaudit.training.tokenizers import word_tokenizer
    >>> tokenizer = word_tokenizer(["a", "and", "fox", "of", "photo", "red"])
    >>> label_tokens(tokenizer, "a photo of red fox and fox", "red fox", beside="fox")  # the start token is 0
    (4, 5)
    >>> label_tokens(tokenizer, "a photo of red fox and fox", "fox", beside="red fox")
    (7,)

    Raises:
        InvalidSetting: the tokenizer has no offsets; the label is not in the prompt, was cut off with its end, or is of
            words that the tokenizer does not know.
    """
    if not getattr(tokenizer, "is_fast", False):
        rule = "be a fast one, which knows the characters of a token"
        remedy = "Install transformers 5 or later, whose tokenizers all are."
        raise InvalidSetting("tokenizer", rule, type(tokenizer).__name__, remedy)
    inside = [] if beside is None else spans(prompt, beside)
    named = [
        (start, end)
        for start, end in spans(prompt, label)
        if not any(first <= start and end <= last for first, last in inside)
    ]
    if not named:
        raise InvalidSetting("label", f"stand in the prompt {prompt!r} as words of its own", label)
    padding = False if length is None else "max_length"
    encoded = tokenizer(prompt, truncation=True, padding=padding, max_length=length, return_offsets_mapping=True)
    offsets = encoded["offset_mapping"]
    found: set[int] = set()
    for start, end in named:
        own = [position for position, (first, last) in enumerate(offsets) if first < end and last > start]
        if own and max(offsets[position][1] for position in own) >= end:
            found.update(own)
    if not found:
        raise InvalidSetting(
            "label", f"stand within the first {len(offsets)} tokens of the prompt", label, "Shorten the prompt."
        )
    if any(encoded["input_ids"][position] == tokenizer.unk_token_id for position in found):
        raise InvalidSetting("label", "be of words that the tokenizer knows", label)
    return tuple(sorted(found))


def token_mask(positions: Sequence[Sequence[int]], tokens: int) -> Tensor:
    """``(B, tokens)`` boolean, true at each image's own ``positions``: labels of a batch differ in words and number.

    >>> token_mask([(1,), (0, 2)], 3)
    tensor([[False,  True, False],
            [ True, False,  True]])

    Raises:
        InvalidSetting: an image has no position, or one outside ``[0, tokens)``.
    """
    mask = torch.zeros(len(positions), tokens, dtype=torch.bool)
    for row, own in zip(mask, positions, strict=True):
        if not own or min(own) < 0 or max(own) >= tokens:
            raise InvalidSetting("positions", f"hold at least one position in [0, {tokens - 1}] per image", tuple(own))
        row[list(own)] = True
    return mask


def spans(prompt: str, words: str) -> list[tuple[int, int]]:
    """Where ``words`` stands in ``prompt`` as words of its own, without regard to case: ``(start, end)`` in characters.

    >>> spans("Red fox and bored fox", "red"), spans("Red fox and bored fox", "fox")
    ([(0, 3)], [(4, 7), (18, 21)])
    """
    pattern = rf"(?<!\w){re.escape(words.strip())}(?!\w)"
    return [match.span() for match in re.finditer(pattern, prompt, re.IGNORECASE)] if words.strip() else []
