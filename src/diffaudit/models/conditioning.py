"""What a prior is told: text and identity, as tokens for cross-attention and one pooled vector beside the time step."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Condition:
    """Conditions of ``B`` images: ``tokens (B, N, d)`` read by cross-attention, ``pooled (B, d)`` or None."""

    tokens: Tensor
    pooled: Tensor | None = None

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: Tensor | slice) -> "Condition":
        return Condition(self.tokens[rows], None if self.pooled is None else self.pooled[rows])

    def followed_by(self, other: "Condition") -> "Condition":
        """Both batches in one, this one first: how guidance asks for two predictions in one call."""
        pooled = None if self.pooled is None or other.pooled is None else torch.cat([self.pooled, other.pooled])
        return Condition(torch.cat([self.tokens, other.tokens]), pooled)

    def where(self, keep: Tensor, other: "Condition") -> "Condition":
        """Rows of this condition where ``keep (B,)`` is true, of ``other`` elsewhere."""
        tokens = torch.where(keep[:, None, None], self.tokens, other.tokens)
        if self.pooled is None or other.pooled is None:
            return Condition(tokens)
        return Condition(tokens, torch.where(keep[:, None], self.pooled, other.pooled))


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
