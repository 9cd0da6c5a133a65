"""The prompts of a batch of pictures, and where the names of classes stand in them."""

from collections.abc import Sequence

from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import TextConditioner
from diffaudit.models.prompts import label_tokens, prompt_with, token_mask
from diffaudit.perturbation.rendering import TokenMasks


class Words:
    """The prompts of pictures as they are and with both names exchanged, and where the names stand in them.

    Args:
        text: of the prior; None where it knows no words, which then are only not looked for.
        template: of every prompt.
        labels: the words of each picture's class.
        rivals: the words of each picture's distractor; None where none is chosen.
    """

    def __init__(
        self, text: TextConditioner | None, template: str, labels: Sequence[str], rivals: Sequence[str] | None
    ) -> None:
        self._text = text
        self._labels = labels
        self._rivals = rivals
        others: Sequence[str | None] = rivals or [None] * len(labels)
        pairs = list(zip(labels, others, strict=True))
        self.prompts = [prompt_with(template, one, other) for one, other in pairs]
        self.swapped = [prompt_with(template, other or one, one if other else None) for one, other in pairs]

    def masks(self, tokens: int) -> TokenMasks:
        """Of the labels and, where there are some, the distractors in :attr:`prompts`."""
        own = self._mask(self.prompts, self._labels, self._rivals, tokens)
        return own, None if self._rivals is None else self._mask(self.prompts, self._rivals, self._labels, tokens)

    def swapped_masks(self, tokens: int) -> TokenMasks:
        """Of the distractors and the labels in :attr:`swapped`."""
        assert self._rivals is not None  # settings ask for a distractor where a term reads one
        return (
            self._mask(self.swapped, self._rivals, self._labels, tokens),
            self._mask(self.swapped, self._labels, self._rivals, tokens),
        )

    def _mask(self, prompts: Sequence[str], words: Sequence[str], beside: Sequence[str] | None, tokens: int) -> Tensor:
        text = self._text
        if text is None:
            raise InvalidSetting("prior", "have a text encoder where attention to a label is asked for", "none")
        others: Sequence[str | None] = beside or [None] * len(words)
        rows = zip(prompts, words, others, strict=True)
        found = [
            label_tokens(text.tokenizer, prompt, word, beside=other, length=text.length) for prompt, word, other in rows
        ]
        return token_mask(found, tokens)
