from collections.abc import Callable
from typing import Any

import pytest
import torch
from kornia.enhance import adjust_hue
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation.ensemble import image_gradients
from diffaudit.perturbation.transforms import View, draw_views, due, turned_and_scaled, turned_hue
from diffaudit.terms.adversarial import negated_cross_entropy


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views_of(images: Tensor, seed: int = 0, **arguments: Any) -> tuple[View, ...]:
    return draw_views(images, 3, generator(seed), **arguments)


def test_nothing_drawn_changes_nothing(pictures: Tensor) -> None:
    for view in views_of(pictures, rotation=0.0, scale=(1.0, 1.0), hue=0.0, noise=0.0):
        torch.testing.assert_close(view(pictures), pictures, rtol=0, atol=1e-6)


def test_draws_are_within_their_ranges_and_fill_them() -> None:
    images = torch.zeros(500, 3, 1, 1)
    (view,) = draw_views(images, 1, generator(), rotation=20.0, scale=(0.5, 1.1), hue=0.1, noise=0.3)
    for values, least, most in ((view.degrees, -20, 20), (view.scales, 0.5, 1.1), (view.hues, -0.1, 0.1)):
        assert least <= values.min() < least + 0.05 * (most - least)
        assert most >= values.max() > most - 0.05 * (most - least)
        assert values.mean().item() == pytest.approx((least + most) / 2, abs=0.05 * (most - least))
    assert view.noise.std().item() == pytest.approx(0.3, rel=0.05)


def test_the_same_generator_draws_the_same(pictures: Tensor) -> None:
    one, again, other = (views_of(pictures, seed)[2](pictures) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    first, second, third = views_of(pictures)
    assert not torch.equal(first.degrees, second.degrees)
    assert not torch.equal(second.noise, third.noise)


def test_a_view_of_an_image_depends_on_its_own_draw_alone(pictures: Tensor) -> None:
    (view, *_) = views_of(pictures)
    for row in range(4):
        only = slice(row, row + 1)
        own = View(view.degrees[only], view.scales[only], view.hues[only], view.noise[only])
        torch.testing.assert_close(own(pictures[only]), view(pictures)[only])


def test_gradient_is_that_of_the_value() -> None:
    images = torch.rand(2, 3, 5, 5, generator=generator(1), dtype=torch.float64, requires_grad=True)
    (view, *_) = views_of(images)
    assert torch.autograd.gradcheck(view, images)


def test_a_quarter_turn_and_a_doubling_by_hand() -> None:
    images = torch.arange(9.0, dtype=torch.float64).view(1, 1, 3, 3).expand(1, 3, 3, 3)
    turned = turned_and_scaled(images, torch.tensor([90.0], dtype=torch.float64), torch.ones(1, dtype=torch.float64))
    torch.testing.assert_close(turned, images.rot90(1, (2, 3)))  # counter-clockwise
    still = torch.zeros(1, dtype=torch.float64)
    doubled = turned_and_scaled(images, still, still + 2)
    expected = torch.tensor([[2.0, 2.5, 3.0], [3.5, 4.0, 4.5], [5.0, 5.5, 6.0]], dtype=torch.float64)
    torch.testing.assert_close(doubled[0, 0], expected)


def test_hue_turns_back_and_keeps_brightness_and_grey(pictures: Tensor) -> None:
    turns = torch.tensor([0.05, -0.05, 0.3, 0.5], dtype=torch.float64)
    turned = turned_hue(pictures, turns)
    assert (turned - pictures).abs().amax((1, 2, 3)).gt(0.01).all()
    torch.testing.assert_close(turned_hue(turned, -turns), pictures, rtol=0, atol=1e-3)
    brightness = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close((turned * brightness).sum(1), (pictures * brightness).sum(1), rtol=0, atol=1e-3)


def slope(change: Callable[[Tensor], Tensor], at: Tensor) -> tuple[float, float]:
    """Of the red of an only pixel by its red: as autograd says and as differences say."""
    start = at.clone().requires_grad_()
    claimed = float(torch.autograd.grad(change(start)[0, 0, 0, 0], start)[0][0, 0, 0, 0])
    small = torch.tensor([1e-6, 0.0, 0.0], dtype=torch.float64)[None, :, None, None]
    return claimed, float((change(at + small) - change(at - small))[0, 0, 0, 0]) / 2e-6


def test_hue_through_hsv_has_the_wrong_gradient_at_grey() -> None:
    grey, turns = torch.full((1, 3, 1, 1), 0.5, dtype=torch.float64), torch.tensor([0.05], dtype=torch.float64)
    claimed, true = slope(lambda image: adjust_hue(image, 2 * torch.pi * turns), grey)
    assert claimed == pytest.approx(1 / 3)
    assert true == pytest.approx(1.0, abs=1e-3)
    claimed, true = slope(lambda image: turned_hue(image, turns), grey)
    assert claimed == pytest.approx(true, rel=1e-6)


def test_every_model_sees_the_same_views(pictures: Tensor) -> None:
    """Two copies of a model give the same gradient; with a draw each, they would disagree by the draw alone."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Flatten(), nn.Linear(768, 5)).double().requires_grad_(False)
    labels = torch.tensor([0, 1, 2, 3])

    def gradients(views: tuple[View, ...]) -> Tensor:
        return image_gradients([model, model], pictures, lambda x: negated_cross_entropy(x, labels), views=views)[0]

    common = gradients(views_of(pictures))
    assert torch.equal(common[0], common[1])
    other = gradients(views_of(pictures, seed=1))
    assert not torch.allclose(common[0], other[0])


def test_views_keep_the_precision_of_the_images() -> None:
    for dtype in (torch.float32, torch.float64):
        images = torch.rand(1, 3, 4, 4, dtype=dtype)
        assert views_of(images)[0](images).dtype == dtype


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"count": 0}, "count"),
        ({"rotation": -1.0}, "rotation"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"scale": (1.1, 0.9)}, "scale"),
        ({"hue": 18.0}, "hue"),
        ({"noise": -0.1}, "noise"),
    ],
)
def test_refusals(arguments: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidSetting, match=f"`{name}` should"):
        draw_views(torch.zeros(1, 3, 2, 2), arguments.pop("count", 1), generator(), **arguments)


def test_every_iteration_below_one_is_refused() -> None:
    assert [due(iteration, 1) for iteration in range(3)] == [True] * 3
    with pytest.raises(InvalidSetting, match="`every` should be a positive integer"):
        due(0, 0)
