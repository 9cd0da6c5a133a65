import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffaudit.data.faces import sample_faces, sample_identities
from diffaudit.models.attributes import ATTRIBUTES
from diffaudit.training.attributes import attribute_targets, correlation, regression_loss
from diffaudit.training.pool import Pool


class AsGiven(nn.Module):
    """Factors hidden in the first pixels of images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2]


def test_targets_stand_where_the_estimator_looks_for_them() -> None:
    faces = sample_faces(sample_identities(5, seed=0), seed=1)
    targets = attribute_targets(faces)
    assert targets.shape == (5, 10)
    for name, columns in ATTRIBUTES.items():
        assert torch.equal(targets[:, columns], getattr(faces, name)), name


def test_correlation_is_that_of_numpy() -> None:
    generator = torch.Generator().manual_seed(0)
    found, known = torch.randn(2, 50, 2, generator=generator)
    known = known + found
    expected = [np.corrcoef(found[:, i].numpy(), known[:, i].numpy())[0, 1] for i in range(2)]
    values = correlation(AsGiven(), found[:, :, None, None], known)  # type: ignore[arg-type]
    assert values.tolist() == pytest.approx(expected, abs=1e-5)


def test_the_loss_is_the_squared_error_of_the_rows_drawn() -> None:
    images = torch.zeros(4, 2, 1, 1, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.tensor([0, 51, 102, 255])
    pool = Pool(images, torch.arange(4))
    truth = images.flatten(1).float() / 255
    generator = torch.Generator()
    assert float(regression_loss(AsGiven(), pool, truth, 32, generator)) == 0  # type: ignore[arg-type]
    off = truth + torch.tensor([1.0, 2.0])
    assert float(regression_loss(AsGiven(), pool, off, 32, generator)) == pytest.approx(2.5)  # type: ignore[arg-type]
