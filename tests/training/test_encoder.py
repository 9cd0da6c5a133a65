import math

import pytest
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from diffaudit.data.faces import sample_identities
from diffaudit.training.encoder import EncoderTrainer, arcface_logits, discriminate, verification_auc
from diffaudit.training.pool import rendered_pool


def directions(*degrees: float) -> Tensor:
    angles = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_the_margin_is_added_to_the_angle_of_the_own_class_alone() -> None:
    logits = arcface_logits(directions(20.0), directions(50.0, 80.0), torch.tensor([0]), margin=0.3, scale=10.0)
    expected = [10 * math.cos(math.radians(30) + 0.3), 10 * math.cos(math.radians(60))]
    assert logits[0].tolist() == pytest.approx(expected)


def test_beyond_pi_the_logit_goes_on_falling() -> None:
    """cos(theta + m) rises again past pi, which would reward the worst embeddings."""
    degrees = torch.linspace(0, 180, 181).tolist()
    logits = arcface_logits(
        directions(*degrees), directions(0.0), torch.zeros(181, dtype=torch.long), margin=0.5, scale=1.0
    )[:, 0]
    assert (logits.diff() < 0).all()
    assert float(logits[-1]) == pytest.approx(-1 - 0.5 * math.sin(0.5))


def test_gradients_are_finite_where_the_angle_is_zero() -> None:
    embeddings = directions(0.0, 180.0).requires_grad_()
    arcface_logits(embeddings, directions(0.0), torch.zeros(2, dtype=torch.long)).sum().backward()
    assert embeddings.grad is not None
    assert embeddings.grad.isfinite().all()


class AsGiven(nn.Module):
    """Embeddings hidden in the first pixels of images."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4]


@pytest.mark.parametrize("seed", range(4))
def test_the_area_is_that_of_sklearn(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(6, (30,), generator=generator)
    centres = torch.randn(6, 4, generator=generator)
    embeddings = centres[labels] + torch.randn(30, 4, generator=generator)
    unit = nn.functional.normalize(embeddings, dim=1)
    first, second = torch.triu_indices(30, 30, 1)
    expected = roc_auc_score((labels[first] == labels[second]).numpy(), (unit @ unit.T)[first, second].numpy())
    found = verification_auc(AsGiven(), embeddings[:, :, None, None], labels)  # type: ignore[arg-type]
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0.5 < found < 1


def test_an_encoder_that_sees_no_difference_is_at_chance() -> None:
    found = verification_auc(AsGiven(), torch.ones(6, 4, 1, 1), torch.tensor([0, 0, 1, 1, 2, 2]))  # type: ignore[arg-type]
    assert found == 0.5


def test_the_loss_teaches_every_part() -> None:
    people = sample_identities(4, seed=0)
    torch.manual_seed(0)
    trainer = EncoderTrainer("plain", 8, people.shape[1])
    pool = rendered_pool(people, 1, seed=1)
    loss = trainer.loss(pool, people, 4, 0.3, torch.Generator().manual_seed(0))
    loss.backward()
    assert loss.isfinite()
    for name, parameter in trainer.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


class Flat(nn.Module):
    """Features hidden in the first pixels of images, under a linear head."""

    def __init__(self, dimension: int, outputs: int) -> None:
        super().__init__()
        self.head = nn.Linear(dimension, outputs)

    def features(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, : self.head.in_features]

    def forward(self, images: Tensor) -> Tensor:
        answers: Tensor = self.head(self.features(images))
        return answers


def test_discriminants_are_those_of_sklearn() -> None:
    generator = torch.Generator().manual_seed(3)
    labels = torch.arange(12).repeat_interleave(10)
    people = 30 * torch.randn(12, 5, generator=generator)[labels]
    pixels = (128 + people + 8 * torch.randn(120, 5, generator=generator)).clamp(0, 255).byte()
    encoder = Flat(5, 3)
    discriminate(encoder, pixels[:, :, None, None], labels, ridge=0.0)  # type: ignore[arg-type]
    with torch.no_grad():
        answers = encoder(pixels[:, :, None, None].float() / 255)
    reference = LinearDiscriminantAnalysis(solver="eigen", n_components=3).fit(pixels.float().numpy() / 255, labels)
    expected = torch.from_numpy(reference.transform(pixels.float().numpy() / 255)).float()
    expected -= expected.mean(0)
    signs = (answers * expected).sum(0).sign()
    torch.testing.assert_close(answers * signs, expected, rtol=1e-3, atol=1e-3)
    means = torch.stack([answers[labels == label].mean(0) for label in range(12)])
    assert (answers - means[labels]).square().mean(0).tolist() == pytest.approx([1, 1, 1], rel=1e-3)


def test_people_who_differ_in_a_quiet_direction_are_told_apart_by_it() -> None:
    """Cosines of the raw features see the loud nuisance; the discriminants see the person."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.arange(8).repeat_interleave(6)
    loud = 128 + 50 * torch.randn(48, 2, generator=generator)
    quiet = 100 + 12 * torch.randn(8, 2, generator=generator)[labels] + torch.randn(48, 2, generator=generator)
    pixels = torch.cat([loud, quiet], dim=1).clamp(0, 255).byte()[:, :, None, None]
    encoder = Flat(4, 2)
    discriminate(encoder, pixels, labels)  # type: ignore[arg-type]
    images = pixels.float() / 255
    assert verification_auc(encoder, images, labels) > 0.85  # type: ignore[arg-type]
    assert verification_auc(AsGiven(), images, labels) < 0.65  # type: ignore[arg-type]
