import pytest
import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import Perceptual, feature_map_distance


def candidate_with(image: Tensor, source: Tensor) -> Candidate:
    target = torch.zeros(len(image), dtype=torch.long)
    return Candidate(image=image, source=source, target=target, logits=torch.zeros(len(image), 2))


def pyramid(images: Tensor) -> list[Tensor]:
    return [images, 2 * images[..., ::2, ::2]]


def test_by_hand() -> None:
    first = [torch.tensor([[[[1.0, 3.0]]], [[[0.0, 0.0]]]]), torch.tensor([[[[2.0]]], [[[1.0]]]])]
    second = [torch.zeros(2, 1, 1, 2), torch.zeros(2, 1, 1, 1)]
    assert feature_map_distance(first, second).tolist() == [9.0, 1.0]


def test_each_layer_counts_once_whatever_its_size() -> None:
    small, large = torch.ones(2, 3, 2, 2), torch.ones(2, 8, 16, 16)
    assert feature_map_distance([small, large], [0 * small, 0 * large]).tolist() == [2.0, 2.0]


def test_constant_difference_in_closed_form() -> None:
    source = torch.rand(3, 3, 8, 8, dtype=torch.float64)
    shift = torch.tensor([0.0, 0.1, 0.5], dtype=torch.float64)
    values = Perceptual(pyramid)(candidate_with(source + shift[:, None, None, None], source))
    torch.testing.assert_close(values, (1 + 4) * shift.square())


def test_term_is_the_formula() -> None:
    image, source = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    expected = feature_map_distance(pyramid(image), pyramid(source))
    assert torch.equal(Perceptual(pyramid)(candidate_with(image, source)), expected)


def test_source_gets_no_gradient() -> None:
    image, source = torch.rand(1, 3, 8, 8, requires_grad=True), torch.rand(1, 3, 8, 8, requires_grad=True)
    Perceptual(pyramid)(candidate_with(image, source)).sum().backward()
    assert image.grad is not None
    assert image.grad.abs().max() > 0
    assert source.grad is None


def test_extractor_sees_the_source_without_gradient_and_the_image_with_it() -> None:
    seen = []

    def extractor(images: Tensor) -> list[Tensor]:
        seen.append((images.mean().item(), torch.is_grad_enabled()))
        return [images]

    Perceptual(extractor)(candidate_with(torch.ones(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)))
    assert sorted(seen) == [(0.0, False), (1.0, True)]


def test_extractor_module_is_part_of_the_term() -> None:
    class Layer(nn.Conv2d):
        def forward(self, images: Tensor) -> list[Tensor]:  # type: ignore[override]
            return [super().forward(images)]

    assert set(Perceptual(Layer(3, 4, 3)).state_dict()) == {"extractor.weight", "extractor.bias"}


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([], [], "`first` should hold as many layers as `second`, 0, and at least one. Found 0."),
        ([torch.zeros(1, 2, 2, 2)], [], "`first` should hold as many layers as `second`, 0"),
        (
            [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)],
            [torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 1, 1)],
            r"`first\[1\]` should have .* `second\[1\]`, \(1, 2, 1, 1\). Found \(1, 2, 2, 2\).",
        ),
    ],
)
def test_refusals(first: list[Tensor], second: list[Tensor], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        feature_map_distance(first, second)
