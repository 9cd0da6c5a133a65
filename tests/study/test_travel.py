"""Travel by hand: two classes of three, one turned by a right angle, one centre moved by the spread."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from diffaudit.inversion.embedding import TableEmbedding
from diffaudit.study.travel import travel
from diffaudit.terms import LearnedCentre


def state_of(embedding: TableEmbedding, terms: dict[str, nn.Module], classes: list[int]) -> Any:
    return SimpleNamespace(
        embedding=embedding,
        attacker=SimpleNamespace(classes=torch.tensor(classes)),
        objective=SimpleNamespace(terms=nn.ModuleDict(terms)),
    )


def test_mean_and_largest_over_the_classes_sought() -> None:
    """Centres of the classes sought begin at (1, 0) and (-1, 0), with spread 1; the middle class is not sought."""
    embedding = TableEmbedding(torch.eye(2))
    centre = LearnedCentre(torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]))
    with torch.no_grad():
        embedding.table[0] = torch.tensor([0.0, 3.0])
        centre.centres[1] = 9.0
        centre.centres[2, 1] = 0.5
    found = travel(state_of(embedding, {"cls_feature": centre}, [0, 2]))
    assert found == {
        "embedding": {"mean": pytest.approx(45), "largest": pytest.approx(90), "unit": "degrees"},
        "centres": {"mean": 0.25, "largest": 0.5, "unit": "spread of the centres at the start"},
    }


def test_centres_without_a_spread_have_no_unit() -> None:
    centre = LearnedCentre(torch.tensor([[1.0, 0.0]]))
    assert travel(state_of(TableEmbedding(torch.eye(2)[:1]), {"cls_feature": centre}, [0]))["centres"] is None
    assert travel(state_of(TableEmbedding(torch.eye(2)), {}, [0, 1]))["centres"] is None
