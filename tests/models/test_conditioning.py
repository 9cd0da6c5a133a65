from types import SimpleNamespace

import torch
from torch import Tensor, nn

from diffaudit.models.conditioning import Condition, IdentityProjector, TextConditioner


def numbered(count: int, *, start: float = 0.0, pooled: bool = True) -> Condition:
    tokens = (torch.arange(count) + start)[:, None, None].expand(count, 2, 3)
    return Condition(tokens, tokens[:, 0] if pooled else None)


def test_rows_of_a_condition() -> None:
    condition = numbered(4)
    assert len(condition) == 4
    assert condition[1:3].tokens[:, 0, 0].tolist() == [1, 2]
    picked = condition[torch.tensor([3, 0])]
    assert picked.pooled is not None
    assert picked.pooled[:, 0].tolist() == [3, 0]
    assert numbered(4, pooled=False)[:1].pooled is None


def test_followed_by_keeps_the_order() -> None:
    both = numbered(2).followed_by(numbered(2, start=10))
    assert both.tokens[:, 0, 0].tolist() == [0, 1, 10, 11]
    assert both.pooled is not None
    assert both.pooled[:, 0].tolist() == [0, 1, 10, 11]
    assert numbered(2).followed_by(numbered(2, pooled=False)).pooled is None


def test_where_takes_rows_from_either() -> None:
    mixed = numbered(3).where(torch.tensor([True, False, True]), numbered(3, start=10))
    assert mixed.tokens[:, 0, 0].tolist() == [0, 11, 2]
    assert mixed.pooled is not None
    assert mixed.pooled[:, 0].tolist() == [0, 11, 2]


def test_the_projector_gives_normalised_tokens_and_a_pooled_vector() -> None:
    projector = IdentityProjector(6, 8, tokens=3, hidden=16)
    embeddings = nn.functional.normalize(torch.randn(2, 6), dim=1)
    condition = projector(embeddings)
    assert condition.tokens.shape == (2, 3, 8)
    assert condition.pooled.shape == (2, 8)
    torch.testing.assert_close(condition.tokens.mean(-1), torch.zeros(2, 3), rtol=0, atol=1e-5)
    alone = projector(embeddings[1:])
    torch.testing.assert_close(condition.tokens[1:], alone.tokens)


def test_the_null_condition_is_one_constant() -> None:
    null = IdentityProjector(6, 8)(torch.zeros(3, 6))
    assert torch.equal(null.tokens[0], null.tokens[2])
    assert torch.equal(null.pooled[0], null.pooled[2])


class Words:
    """One number a letter, padded with 0."""

    def __call__(self, prompts: list[str], *, max_length: int, **_: object) -> dict[str, Tensor]:
        rows = [[ord(letter) for letter in prompt][:max_length] for prompt in prompts]
        return {"input_ids": torch.tensor([row + [0] * (max_length - len(row)) for row in rows])}


class LookUp(nn.Module):
    config = SimpleNamespace(max_position_embeddings=4)

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(128, 1)
        self.table.weight.data = torch.arange(128.0)[:, None]

    def forward(self, token_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table(token_ids))


def test_prompts_are_cut_and_padded_to_the_full_length() -> None:
    text = TextConditioner(Words(), LookUp())
    assert text.token_ids(["ab", "abcdef"]).tolist() == [[97, 98, 0, 0], [97, 98, 99, 100]]
    assert text(["ab"])[0, :, 0].tolist() == [97, 98, 0, 0]
