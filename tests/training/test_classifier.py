import math

import pytest
import torch
from torch import Tensor, nn

from diffaudit.training.classifier import accuracy, classification_loss
from diffaudit.training.pool import Pool


class Always(nn.Module):
    """The same logits for every picture."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


class Red(nn.Module):
    """Class 1 for what is more red than blue."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))[:, [2, 0]]


@pytest.fixture
def pool() -> Pool:
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    images[[0, 1], 2] = 255
    images[[2, 3], 0] = 255
    return Pool(images, torch.tensor([0, 0, 1, 1]))


def test_accuracy_by_hand(pool: Pool) -> None:
    images = pool.at(torch.arange(4))
    assert accuracy(Red(), images, torch.tensor([0, 0, 1, 1])) == 1
    assert accuracy(Red(), images, torch.tensor([0, 1, 1, 0])) == 0.5
    assert accuracy(Always(0.0, 1.0), images, torch.tensor([0, 1, 0, 0])) == 0.25


def test_accuracy_over_more_pictures_than_a_batch(pool: Pool) -> None:
    rows = torch.arange(4).repeat(100)
    assert accuracy(Red(), pool.at(rows), pool.labels[rows]) == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_classifier_that_knows_nothing_loses_the_logarithm_of_the_classes(pool: Pool, smoothing: float) -> None:
    network = Always(0.0, 0.0, 0.0, 0.0, 0.0)
    generator = torch.Generator().manual_seed(0)
    loss = classification_loss(network, pool, 16, generator, erase=0.5, smoothing=smoothing)  # type: ignore[arg-type]
    assert float(loss) == pytest.approx(math.log(5))


def test_labels_follow_the_pictures_drawn(pool: Pool) -> None:
    loss = classification_loss(Red(), pool, 64, torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    # A whole channel apart, up to the gain and offset of the views: log(1 + exp(-1)) = 0.313, wrongly paired 1.313.
    assert float(loss) == pytest.approx(math.log(1 + math.exp(-1)), abs=0.05)
