import pytest
import torch

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import CoarseColour, PixelDistance, coarse_colour_distance, pixel_distance


def images_of() -> tuple[torch.Tensor, torch.Tensor]:
    first, second = torch.rand(2, 3, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return first, second


def test_distance_by_hand() -> None:
    after, before = torch.zeros(2, 3, 1, 2), torch.zeros(2, 3, 1, 2)
    after[0, 0, 0, 1], after[1] = 0.6, -0.5
    # One of six values is 0.6 off; all are half off, the other way.
    assert pixel_distance(after, before).tolist() == pytest.approx([0.06, 0.25])


def test_distance_is_torchs_by_image() -> None:
    after, before = images_of()
    expected = [torch.nn.functional.mse_loss(*pair) for pair in zip(after, before, strict=True)]
    torch.testing.assert_close(pixel_distance(after, before), torch.stack(expected))


def test_the_term_is_the_formula_and_the_source_stays() -> None:
    image, source = (tensor.requires_grad_() for tensor in images_of())
    candidate = Candidate(image=image, source=source, target=torch.zeros(3).long(), logits=torch.zeros(3, 2))
    value = PixelDistance()(candidate)
    torch.testing.assert_close(value, pixel_distance(image, source))
    value.sum().backward()
    torch.testing.assert_close(image.grad, 2 * (image - source).detach() / 60)
    assert source.grad is None


def test_other_shapes_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="`after`"):
        pixel_distance(torch.zeros(2, 3, 4, 4), torch.zeros(2, 3, 4, 5))


def test_coarse_colour_by_hand() -> None:
    """A dot of 0.8 in eight values, and 0.6 that has moved; where cells are values, all four count by themselves."""
    after, before = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4)
    after[..., 0, 0], after[..., 0, 2], before[..., 1, 3] = 0.8, 0.6, 0.6
    assert coarse_colour_distance(after, before, grid=1).tolist() == pytest.approx([0.1])
    values = torch.tensor([[0.8, 0.0], [0.6, -0.6]]).view(1, 1, 2, 2)
    assert coarse_colour_distance(values, values * 0, grid=2).tolist() == pytest.approx([0.5])
    assert coarse_colour_distance(values, values * 0, grid=1).tolist() == pytest.approx([0.2])


def test_what_moves_inside_a_cell_costs_nothing() -> None:
    image = images_of()[0][..., :4]
    assert coarse_colour_distance(image.flip(3), image, grid=1).tolist() == pytest.approx([0.0] * 3, abs=1e-12)
    assert (coarse_colour_distance(image.flip(3), image, grid=4) > 0.1).all()


def test_the_colour_term_is_its_formula() -> None:
    image, source = (tensor.requires_grad_() for tensor in images_of())
    candidate = Candidate(image=image, source=source, target=torch.zeros(3).long(), logits=torch.zeros(3, 2))
    value = CoarseColour(grid=2)(candidate)
    torch.testing.assert_close(value, coarse_colour_distance(image, source, grid=2))
    value.sum().backward()
    assert source.grad is None


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="`grid` should be a positive integer"):
        CoarseColour(grid=0)
    with pytest.raises(InvalidSetting, match=r"`grid` should be in \[1, 4\]"):
        coarse_colour_distance(*images_of(), grid=5)
