"""What a prior is told: text and identity, as tokens for cross-attention and one pooled vector beside the time step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Condition:
    """Conditions of ``B`` images: ``tokens (B, N, d)`` read by cross-attention, and what else the model is told.

    ``pooled (B, d)`` goes beside the time step, ``identity (B, D)`` to an IP-Adapter's own attention; None where the
    model has no place for them.
    """

    tokens: Tensor
    pooled: Tensor | None = None
    identity: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Tensor | slice) -> "Condition":
        return self._joined(self, lambda part, _: part[rows])

    def followed_by(self, other: "Condition") -> "Condition":
        """Both batches in one, this one first: how guidance asks for two predictions in one call."""
        return self._joined(other, lambda first, second: torch.cat([first, second]))

    def where(self, keep: Tensor, other: "Condition") -> "Condition":
        """Rows of this condition where ``keep (B,)`` is true, of ``other`` elsewhere."""
        return self._joined(other, lambda here, there: torch.where(keep.view(-1, *[1] * (here.ndim - 1)), here, there))

    def _joined(self, other: "Condition", join: Callable[[Tensor, Tensor], Tensor]) -> "Condition":
        """Part by part; a part that one of both lacks is left out."""

        def part(here: Tensor | None, there: Tensor | None) -> Tensor | None:
            return None if here is None or there is None else join(here, there)

        tokens = join(self.tokens, other.tokens)
        return Condition(tokens, part(self.pooled, other.pooled), part(self.identity, other.identity))


class IdentityProjector(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """Unit identity embeddings ``(B, D)`` to ``tokens`` cross-attention tokens ``(B, n, d)`` and a pooled ``(B, d)``.

    The zero vector stands for "no identity": its image, a learned constant, is the null condition of guidance.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(self, embedding_dim: int, cross_attention_dim: int, tokens: int = 4, hidden: int = 256) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dimension = embedding_dim
        self.tokens = tokens
        self.body = nn.Sequential(nn.Linear(embedding_dim, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU())
        self.to_tokens = nn.Linear(hidden, tokens * cross_attention_dim)
        self.norm = nn.LayerNorm(cross_attention_dim)
        self.to_pooled = nn.Linear(hidden, cross_attention_dim)

    def forward(self, embeddings: Tensor) -> Condition:
        # A unit vector's entries are about 1/sqrt(D): bring them to order one.
        hidden = self.body(embeddings * self.dimension**0.5)
        tokens = self.to_tokens(hidden).view(len(embeddings), self.tokens, -1)
        return Condition(self.norm(tokens), self.to_pooled(hidden))


class TextConditioner(nn.Module):
    """A tokenizer and a text encoder of transformers: prompts to tokens ``(B, L, d)``, as in diffusers' pipelines."""

    def __init__(self, tokenizer: object, encoder: nn.Module) -> None:
        super().__init__()
        self.tokenizer = tokenizer
        self.encoder = encoder

    @property
    def length(self) -> int:
        """``L``, the encoder's full length, to which prompts are padded and cut."""
        length: int = self.encoder.config.max_position_embeddings  # type: ignore[union-attr, assignment]
        return length

    def token_ids(self, prompts: Sequence[str]) -> Tensor:
        """``(B, L)`` token numbers."""
        batch = self.tokenizer(  # type: ignore[operator]
            list(prompts), padding="max_length", truncation=True, max_length=self.length, return_tensors="pt"
        )
        ids: Tensor = batch["input_ids"]
        return ids

    def encode(self, token_ids: Tensor) -> Tensor:
        """``(B, L)`` token numbers to ``(B, L, d)``."""
        tokens: Tensor = self.encoder(token_ids.to(next(self.encoder.parameters()).device)).last_hidden_state
        return tokens

    def forward(self, prompts: Sequence[str]) -> Tensor:
        return self.encode(self.token_ids(prompts))
