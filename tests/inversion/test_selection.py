import pytest
import torch
from torch import Tensor, nn

from diffaudit.inversion.selection import keep_best, random_view, robust_log_probability
from diffaudit.models.classifier import Classifier


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("seed", range(8))
def test_a_view_is_a_mirrored_and_moved_image_with_another_gain(seed: int) -> None:
    images = 0.3 + 0.4 * torch.rand(2, 3, 32, 32, generator=seeded(100))
    view = random_view(images, seeded(seed))
    draw = torch.rand(5, generator=seeded(seed)).tolist()
    expected = images.flip(-1) if draw[0] < 0.5 else images
    down, right = (round((2 * value - 1) * 2) for value in draw[1:3])
    expected = expected.roll((-down, -right), dims=(-2, -1)) * (0.9 + 0.2 * draw[3]) + 0.1 * (draw[4] - 0.5)
    # Away from the rim, which is repeated and not rolled around.
    torch.testing.assert_close(view[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2])
    assert view.shape == images.shape


def test_views_stay_in_range_and_are_shared_by_the_batch() -> None:
    images = torch.rand(1, 3, 16, 16).expand(3, -1, -1, -1)
    for seed in range(8):
        view = random_view(images * 2 - 0.5, seeded(seed))
        assert view.min() >= 0
        assert view.max() <= 1
        assert torch.equal(view[0], view[2])


class ChannelMeans(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return 10 * images.mean((2, 3))


def test_the_score_is_the_mean_log_probability_over_the_views() -> None:
    classifier = Classifier(ChannelMeans(), size=None, fingerprint="f")
    images, target = torch.rand(4, 3, 16, 16), torch.tensor([0, 1, 2, 1])
    generator, expected = seeded(5), torch.zeros(4)
    for _ in range(3):
        probabilities = (10 * random_view(images, generator).mean((2, 3))).softmax(1)
        expected += probabilities[torch.arange(4), target].log() / 3
    found = robust_log_probability(classifier, images, target, views=3, generator=seeded(5))
    torch.testing.assert_close(found, expected)


def test_images_of_a_batch_do_not_influence_each_other() -> None:
    classifier = Classifier(ChannelMeans(), size=None, fingerprint="f")
    images, target = torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 2])
    together = robust_log_probability(classifier, images, target, views=2, generator=seeded(6))
    alone = robust_log_probability(classifier, images[1:2], target[1:2], views=2, generator=seeded(6))
    torch.testing.assert_close(together[1:2], alone)


def test_the_best_come_first() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.5], [3.0, 1.0, 2.0]])
    assert keep_best(scores, 2).tolist() == [[1, 2], [0, 2]]
    assert keep_best(scores, 3).tolist() == [[1, 2, 0], [0, 2, 1]]


def test_ties_go_to_the_earlier_candidate() -> None:
    assert keep_best(torch.zeros(2, 100), 3).tolist() == [[0, 1, 2]] * 2
