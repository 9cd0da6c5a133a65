import math
from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation.adaea import AdaEA, crossed_losses, disparity, modulation_weights
from diffaudit.perturbation.ensemble import image_gradients
from diffaudit.terms.adversarial import goal_cross_entropy, negated_cross_entropy


def gradients(models: int = 3) -> Tensor:
    return torch.randn(models, 2, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def pixels(*colours: list[float]) -> Tensor:
    """The gradient of each model at the only pixel of an image, as red, green, blue."""
    return torch.tensor(colours, dtype=torch.float64)[:, None, :, None, None]


def test_modulation_by_hand() -> None:
    # Steps of the first model bring the others to 2 and 3 times what their own steps do, and so on.
    crossed = torch.tensor([[1.0, 4.0, 6.0], [0.5, 2.0, 1.0], [1.0, 1.0, 2.0]], dtype=torch.float64)[:, :, None]
    sums = [4 / 2 + 6 / 2, 0.5 / 1 + 1 / 2, 1 / 1 + 1 / 2]
    total = sum(math.exp(0.7 * value) for value in sums)
    expected = [math.exp(0.7 * value) / total for value in sums]
    assert modulation_weights(crossed, beta=0.7).flatten().tolist() == pytest.approx(expected)


def test_beta_is_ten_where_none_is_given() -> None:
    """Steps of the first model bring the second to 1.3 of what its own do, those of the second the first to 1.2."""
    crossed = torch.tensor([[1.0, 1.3], [1.2, 1.0]], dtype=torch.float64)[:, :, None]
    expected = 1 / (1 + math.exp(10 * (1.2 - 1.3)))
    for weights in (modulation_weights(crossed), AdaEA(crossed).weights):
        assert weights.flatten().tolist() == pytest.approx([expected, 1 - expected])


def test_a_loss_of_zero_leaves_numbers() -> None:
    crossed = torch.tensor([[0.0, 1.0], [0.0, 1.0]])[:, :, None]
    assert modulation_weights(crossed).isfinite().all()


def test_batch_means_would_weigh_an_image_by_its_batch_mates() -> None:
    one, other = torch.tensor([[1.0, 3.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [30.0, 2.0]])
    both = torch.stack([one, other], dim=2)
    fault = modulation_weights(both.mean(2, keepdim=True))
    assert modulation_weights(one[:, :, None])[0] > 0.9
    assert fault[0] < 0.1
    torch.testing.assert_close(modulation_weights(both)[:, :1], modulation_weights(one[:, :, None]))


def test_crossed_losses_are_those_of_the_stepped_pictures(surrogates: list[nn.Module], pictures: Tensor) -> None:
    labels = torch.tensor([0, 1, 2, 3])
    found, _ = image_gradients(surrogates, pictures, lambda logits: negated_cross_entropy(logits, labels))
    crossed = crossed_losses(surrogates, pictures, found, lambda logits: goal_cross_entropy(logits, labels))
    assert crossed.shape == (3, 3, 4)
    stepped = (pictures - 2 / 255 * found[2].sign()).clamp(0, 1)
    torch.testing.assert_close(
        crossed[2, 0], nn.functional.cross_entropy(surrogates[0](stepped), labels, reduction="none")
    )
    before = torch.stack([goal_cross_entropy(model(pictures), labels) for model in surrogates])
    assert (before < crossed.diagonal(dim1=0, dim2=1).T).all()  # every model's own step raises its own loss


def test_disparity_is_the_mean_cosine_over_pairs() -> None:
    found = gradients()
    pairs = [torch.cosine_similarity(found[i], found[j], dim=1) for i, j in combinations(range(3), 2)]
    torch.testing.assert_close(disparity(found), torch.stack(pairs).mean(0)[:, None])


def test_the_published_map_leaves_out_the_last_model_and_changes_with_the_order() -> None:
    agreeing = pixels([1, 0, 0], [2, 0, 0], [3, 0, 0])
    assert disparity(agreeing).item() == pytest.approx(1.0)
    assert disparity(agreeing, as_published=True).item() == pytest.approx(2 / 3)
    # The last of three points the other way: rows are 0, 0 and -1, of which the published sum has two.
    opposed = pixels([1, 0, 0], [1, 0, 0], [-1, 0, 0])
    assert disparity(opposed).item() == pytest.approx(-1 / 3)
    assert disparity(opposed, as_published=True).item() == pytest.approx(0.0)
    # With the odd one first the same gradients give another map, and the filter of -0.3 another answer.
    assert disparity(opposed.flip(0), as_published=True).item() == pytest.approx(-1 / 3)
    assert disparity(opposed.flip(0)).item() == pytest.approx(-1 / 3)
    crossed = torch.ones(3, 3, 1, dtype=torch.float64)
    losses = torch.zeros(3, 1, dtype=torch.float64)
    assert not AdaEA(crossed)(opposed, losses, -losses).gradient.any()
    assert AdaEA(crossed, as_published=True)(opposed, losses, -losses).gradient.any()
    assert not AdaEA(crossed, as_published=True)(opposed.flip(0), losses, -losses).gradient.any()


def test_the_published_map_is_ours_less_the_last_row() -> None:
    found = gradients(4)
    last = torch.stack([torch.cosine_similarity(found[3], found[j], dim=1) for j in range(3)]).mean(0)[:, None]
    torch.testing.assert_close(disparity(found, as_published=True), disparity(found) - last / 4)


def test_pixels_below_the_threshold_stay() -> None:
    found = gradients()
    weights, gradient = AdaEA(torch.ones(3, 3, 2, dtype=torch.float64), threshold=0.1)(found, *torch.zeros(2, 3, 2))
    kept = (disparity(found) >= 0.1).expand_as(gradient)
    assert 0 < kept.sum() < kept.numel()
    assert not gradient[~kept].any()
    torch.testing.assert_close(gradient[kept], found.mean(0)[kept])
    torch.testing.assert_close(weights, torch.full((3, 2), 1 / 3, dtype=torch.float64))


def test_a_pixel_without_gradient_is_a_number() -> None:
    assert disparity(torch.zeros(3, 1, 3, 2, 2)).abs().max() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: AdaEA(torch.ones(2, 2, 1), threshold=-2.0), r"`threshold` should be a cosine, in \[-1, 1\]"),
        (lambda: modulation_weights(torch.ones(2, 2, 1), beta=-1.0), "`beta` should be a finite number"),
        (lambda: modulation_weights(torch.ones(2, 3, 1)), r"`crossed` should have shape \(M, M, B\)"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        call()
