"""Gradient steps on finished pixels, on a linear classifier, where each step is known."""

import pytest
import torch
from torch import Tensor, nn

from diffaudit.inversion.finishing import adversarial_pixels
from diffaudit.models.classifier import Classifier


class Linear(nn.Module):
    """Two classes: the mean red, and the mean green; blue says nothing."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))[:, :2]


CLASSIFIER = Classifier(Linear(), size=None, fingerprint="linear")
LABELS = torch.tensor([0, 1, 0])


def pictures() -> Tensor:
    return torch.randint(0, 256, (3, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()


def log_probability(images: Tensor) -> Tensor:
    return CLASSIFIER.logits(images.float() / 255).log_softmax(1).gather(1, LABELS[:, None])[:, 0]


def test_adam_s_first_step_is_the_rate_by_hand() -> None:
    """Toward red for class 0, away from it for class 1; green the other way; what says nothing stays."""
    images = torch.full((2, 3, 4, 4), 100, dtype=torch.uint8)
    moved = adversarial_pixels(CLASSIFIER, images, torch.tensor([0, 1]), steps=1, rate=10 / 255).int() - 100
    assert moved.float().mean((2, 3)).tolist() == [[10, -10, 0], [-10, 10, 0]]


def test_the_target_is_surer_of_every_image() -> None:
    moved = adversarial_pixels(CLASSIFIER, pictures(), LABELS, steps=5, rate=0.02)
    assert (log_probability(moved) > log_probability(pictures()) + 0.05).all()


def test_pixels_stay_in_bounds_and_reach_them() -> None:
    moved = adversarial_pixels(CLASSIFIER, pictures(), LABELS, steps=50, rate=0.1)
    assert moved.dtype == torch.uint8
    assert (moved[0, 0] == 255).all()
    assert (moved[0, 1] == 0).all()
    assert torch.equal(moved[:, 2], pictures()[:, 2])


def test_nothing_but_the_images_that_are_returned_moves() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    classifier, before = Classifier(model, size=None, fingerprint="f"), [p.clone() for p in model.parameters()]
    images = pictures()
    adversarial_pixels(classifier, images, LABELS, steps=3, rate=0.1)
    assert torch.equal(images, pictures())
    assert all(torch.equal(one, other) for one, other in zip(model.parameters(), before, strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_no_step_leaves_every_byte() -> None:
    every = torch.arange(256).byte().view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(adversarial_pixels(CLASSIFIER, every, LABELS[:1], steps=0, rate=0.1), every)


@pytest.mark.parametrize("number", range(3))
def test_no_image_depends_on_its_batch(number: int) -> None:
    part = slice(number, number + 1)
    together = adversarial_pixels(CLASSIFIER, pictures(), LABELS, steps=5, rate=0.02)
    alone = adversarial_pixels(CLASSIFIER, pictures()[part], LABELS[part], steps=5, rate=0.02)
    assert torch.equal(together[part], alone)
