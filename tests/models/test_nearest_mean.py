import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.nearest_mean import COSINE_SCALE, mean_per_class, nearest_mean_classifier


class MeanColour(nn.Module):
    """Embeds a picture as its mean colour: (B, 3, H, W) -> (B, 3)."""

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def encoder(fingerprint: str = "a") -> IdentityEncoder:
    return IdentityEncoder(MeanColour(), size=None, dimension=3, fingerprint=fingerprint)


def plain(*colours: tuple[int, int, int]) -> Tensor:
    """One picture of a single colour for each."""
    return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, 3, 4, 4).contiguous()


REFERENCE = plain((255, 0, 0), (0, 255, 0), (0, 200, 0), (0, 0, 255))
LABELS = torch.tensor([0, 1, 1, 2])


def test_a_picture_goes_to_the_class_whose_mean_is_nearest() -> None:
    classifier = nearest_mean_classifier(encoder(), REFERENCE, LABELS)
    seen = plain((200, 10, 10), (10, 90, 10), (0, 10, 40)).float() / 255
    assert classifier.logits(seen).argmax(1).tolist() == [0, 1, 2]


def test_logits_are_scaled_cosines() -> None:
    classifier = nearest_mean_classifier(encoder(), REFERENCE, LABELS)
    logits = classifier.logits(plain((255, 255, 0)).float() / 255)
    torch.testing.assert_close(logits, COSINE_SCALE * torch.tensor([[0.5**0.5, 0.5**0.5, 0.0]]))


def test_means_weigh_directions_not_photographs_lengths() -> None:
    found = mean_per_class(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0]))
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5]]))


def test_a_class_without_a_photograph_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`labels` should name every class from 0 on. Found \[1, 0, 1\]"):
        mean_per_class(torch.eye(2), torch.tensor([0, 2]))


def test_the_batch_changes_no_logit() -> None:
    classifier = nearest_mean_classifier(encoder(), REFERENCE, LABELS, batch=1)
    images = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([classifier.logits(image[None]) for image in images])
    torch.testing.assert_close(classifier.logits(images), alone)


def test_the_fingerprint_tells_encoders_and_photographs_apart() -> None:
    marks = {
        nearest_mean_classifier(encoder(mark), pictures, LABELS).fingerprint
        for mark in "ab"
        for pictures in (REFERENCE, REFERENCE.flip(0))
    }
    assert len(marks) == 4


def test_it_has_no_features_and_says_why() -> None:
    classifier = nearest_mean_classifier(encoder(), REFERENCE, LABELS)
    assert classifier(REFERENCE.float() / 255).features is None
    assert classifier.no_features is not None
