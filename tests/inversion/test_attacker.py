"""What the attacker makes of public pictures: anchors and centres, by hand."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.inversion.attacker import Attacker, PublicPictures, look_at
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder

PUBLIC = PublicPictures(
    images=torch.tensor([0, 51, 255], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 2, 2),
    log_probabilities=torch.tensor([[-1.0, -9.0, -3.0], [-2.0, -8.0, -1.0], [-3.0, -7.0, -2.0]]),
    features=torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 8.0]]),
    embeddings=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
)


@pytest.fixture
def by_hand(attacker: Attacker) -> Attacker:
    return replace(attacker, classes=torch.tensor([0, 2]), public=PUBLIC)


def test_the_best_pictures_of_a_class_come_first(by_hand: Attacker) -> None:
    assert by_hand.public.best(by_hand.classes, 2).tolist() == [[0, 1], [1, 2]]


def test_anchors_are_unit_means_of_the_best_pictures_embeddings(by_hand: Attacker) -> None:
    second = torch.tensor([0.3, 0.9])
    expected = torch.stack([torch.tensor([0.5, 0.5]) * 2**0.5, second / second.norm()])
    torch.testing.assert_close(by_hand.pseudo_anchors(2), expected)


def test_centres_are_mean_features_of_the_same_pictures(by_hand: Attacker) -> None:
    torch.testing.assert_close(by_hand.pseudo_centres(2), torch.tensor([[2.0, 1.0], [4.0, 5.0]]))


def test_a_target_without_features_has_no_centres(by_hand: Attacker) -> None:
    assert replace(by_hand, public=replace(PUBLIC, features=None)).pseudo_centres(2) is None


def test_more_anchors_than_pictures_are_refused(by_hand: Attacker) -> None:
    with pytest.raises(InvalidSetting, match=r"`anchor_images` should be at most .* \(3\). Found 4"):
        by_hand.pseudo_anchors(4)


def test_pictures_come_back_in_zero_to_one() -> None:
    assert PUBLIC.at(torch.tensor([1, 2]))[:, 0, 0, 0].tolist() == pytest.approx([0.2, 1.0])


class ChannelMeans(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


@pytest.mark.parametrize("batch", [2, 128])
def test_looking_asks_both_models_about_every_picture(batch: int) -> None:
    head = nn.Linear(3, 4)
    classifier = Classifier(nn.Sequential(ChannelMeans(), head), size=None, fingerprint="f")
    encoder = IdentityEncoder(ChannelMeans(), size=None, dimension=3, fingerprint="e")
    images = torch.randint(1, 256, (5, 3, 4, 4), dtype=torch.uint8)
    seen = look_at(images, classifier, encoder, batch=batch)
    means = (images.float() / 255).mean((2, 3))
    torch.testing.assert_close(seen.features, means)
    torch.testing.assert_close(seen.log_probabilities, head(means).log_softmax(1))
    torch.testing.assert_close(seen.embeddings, means / means.norm(dim=1, keepdim=True))
    assert not seen.log_probabilities.requires_grad


def test_hidden_features_stay_hidden() -> None:
    classifier = Classifier(ChannelMeans(), size=None, fingerprint="f")
    encoder = IdentityEncoder(ChannelMeans(), size=None, dimension=3, fingerprint="e")
    assert look_at(torch.ones(2, 3, 4, 4, dtype=torch.uint8), classifier, encoder).features is None
