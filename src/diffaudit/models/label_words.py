"""A prompt in which vectors stand for a class: textual inversion."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import TextConditioner
from diffaudit.models.prompts import label_tokens, prompt_with, spans


class LabelWords:
    """Vectors in the text encoder's word space, one a token, in the place of a label in a prompt.

    The vectors take part in the text encoder's attention as the words around them do. They begin as the vectors of
    ``initial``, whose tokens say how many there are.

    Gal et al., *An Image is Worth One Word*, 2022, arXiv 2208.01618, with one vector or several.

    Args:
        text: tokenizer and encoder of the prior.
        template: a prompt with one place ``{label}``.
        initial: words of the tokenizer's, such as "person".

    Raises:
        InvalidSetting: the template has another number of places, or names the initial words elsewhere too; the
            tokenizer does not know a word.
    """

    def __init__(self, text: TextConditioner, template: str, initial: str) -> None:
        if template.count("{label}") != 1:
            rule = "have one place {label}, where the vectors that are sought stand"
            raise InvalidSetting("attack.prior.prompt", rule, template)
        if "{distractor}" in template:
            raise InvalidSetting(
                "attack.prior.prompt", "have no place {distractor}, which an inversion has none for", template
            )
        self.prompt = prompt_with(template, initial)
        named = len(spans(self.prompt, initial))
        if named != 1:
            rule = (
                f"not name {initial!r} itself, which stands for the vectors that are sought"
                if named
                else "let the words in the place {label} stand as words of their own"
            )
            raise InvalidSetting("attack.prior.prompt", rule, template)
        self.positions = label_tokens(text.tokenizer, self.prompt, initial, length=text.length)
        self._text = text
        self._ids = text.token_ids([self.prompt])
        self.start = self._layer(self._ids)[0, self.positions].detach().flatten()

    @property
    def dimension(self) -> int:
        """``D``: the tokens of the initial words, times the size of a word vector."""
        return len(self.start)

    def __call__(self, vectors: Tensor) -> Tensor:
        """Word vectors ``(B, D)``, token after token, to the tokens ``(B, L, d)`` of the prompt that holds them."""
        rows = vectors.view(len(vectors), len(self.positions), -1)
        with _placed(self._layer, rows, self.positions):
            return self._text.encode(self._ids.expand(len(vectors), -1))

    @property
    def _layer(self) -> nn.Module:
        """The text encoder's table of word vectors."""
        layer: nn.Module = self._text.encoder.get_input_embeddings()  # type: ignore[operator]
        return layer


@contextmanager
def _placed(layer: nn.Module, rows: Tensor, positions: tuple[int, ...]) -> Iterator[None]:
    """What ``layer`` gives at ``positions`` is replaced by ``rows (B, len(positions), d)``."""

    def place(module: nn.Module, arguments: object, output: Tensor) -> Tensor:
        return output.index_copy(1, torch.tensor(positions), rows)

    handle = layer.register_forward_hook(place)
    try:
        yield
    finally:
        handle.remove()
