from collections.abc import Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import TextConditioner
from diffaudit.perturbation.distractors import nearest_names, rivals_by
from diffaudit.training.tokenizers import word_tokenizer

WORDS = ["fox", "grey", "wolf", "crane", "heron"]


class Plane(nn.Module):
    """Every word is a direction in a plane, by its angle and length; all else is one long vector across the plane."""

    ANGLES: Mapping[str, tuple[float, float]] = {
        "fox": (0.0, 1.0),
        "grey": (0.2, 3.0),
        "wolf": (0.4, 3.0),
        "crane": (1.2, 9.0),
        "heron": (1.5, 0.1),
    }

    def __init__(self, tokenizer: object) -> None:
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=8)
        table = torch.zeros(len(tokenizer), 3)  # type: ignore[arg-type]
        table[:, 2] = 50.0
        for word, (angle, length) in self.ANGLES.items():
            number = tokenizer.convert_tokens_to_ids(word)  # type: ignore[attr-defined]
            table[number] = length * torch.tensor([torch.tensor(angle).cos(), torch.tensor(angle).sin(), 0.0])
        self.table = nn.Parameter(table)

    def forward(self, token_ids: Tensor) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.table[token_ids])


def plane() -> TextConditioner:
    tokenizer = word_tokenizer(WORDS)
    return TextConditioner(tokenizer, Plane(tokenizer))


def test_a_name_is_the_mean_of_its_own_words() -> None:
    """At 0, 0.3 (two words), 1.2 and 1.5, however loud. With the padding, 50 times as loud, the number of words and
    their loudness would decide: fox would be next to heron, as quiet as it is."""
    names = ["fox", "grey wolf", "crane", "heron"]
    assert nearest_names(plane(), names).tolist() == [1, 0, 3, 2]
    encoded = plane()(names).mean(1)
    padded = nn.functional.normalize(encoded, dim=1)
    assert rivals_by(padded @ padded.T, torch.arange(4), names).tolist() != [1, 0, 3, 2]


def test_names_of_many_batches_are_those_of_one() -> None:
    """Of 130 names those that are the same are no rivals."""
    names = ["fox", "grey wolf", "crane", "heron"] * 32 + ["fox", "heron"]
    assert [names[rival] for rival in nearest_names(plane(), names).tolist()] == [
        {"fox": "grey wolf", "grey wolf": "fox", "crane": "heron", "heron": "crane"}[name] for name in names
    ]


def test_a_distractor_never_bears_the_own_name() -> None:
    """As two classes of ImageNet that are both called crane."""
    likeness = torch.tensor([[0.5, 0.1, 0.4]]).expand(3, 3)
    assert rivals_by(likeness, torch.tensor([0, 2, 1]), ("crane", "fox", "Crane")).tolist() == [1, 1, 0]
    with pytest.raises(InvalidSetting, match="have different names where a distractor is chosen"):
        rivals_by(likeness, torch.tensor([0, 2, 1]), ("crane",) * 3)


def test_words_that_the_prior_does_not_know_have_no_neighbours() -> None:
    with pytest.raises(InvalidSetting, match="`label` should be of words that the tokenizer knows"):
        nearest_names(plane(), ["fox", "badger"])
