from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, UnsafeArchive
from diffaudit.models.exported import read_program
from diffaudit.models.exported_maps import ExportedMaps, exported_perceptual
from diffaudit.models.perceptual import perceptual_distance

Exporter = Callable[..., Path]


def ones(inputs: int, outputs: int, size: int, stride: int, padding: int = 0) -> nn.Conv2d:
    """A convolution that adds up what it sees, times the number of its output channel."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(1.0, outputs + 1)[:, None, None, None].expand_as(layer.weight))
    return layer


class Staged(nn.Module):
    """Maps of sides 8, 4 and 2, the coarser two padded for what follows; then an average and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = ones(3, 1, 1, 1)
        self.second = ones(1, 2, 2, 2)
        self.third = ones(2, 1, 3, 2)
        self.head = nn.Linear(1, 5)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.first(2 * images - 1).relu()
        middle = nn.functional.pad(self.second(fine) / 4, (0, 1, 0, 1))
        coarse = nn.functional.pad(self.third(middle), (1, 1, 1, 1))
        logits: Tensor = self.head(coarse.mean((2, 3)))
        return logits


def features_of(model: nn.Module, path: Path, export: Exporter) -> ExportedMaps:
    program, _ = read_program(export(model, path), allow_code=False)
    return ExportedMaps(program)


def test_the_last_map_of_every_size_by_hand(tmp_path: Path, export_program: Exporter) -> None:
    network = features_of(Staged(), tmp_path / "a.pt2", export_program)
    fine, middle, coarse = network.maps(torch.ones(2, 3, 8, 8))
    # Three channels of 1 each; the mean of four 3s, once and twice; 9 places of 3 + 6, but at the padded edge.
    assert torch.equal(fine, torch.full((2, 1, 8, 8), 3.0))
    assert torch.equal(middle, torch.tensor([3.0, 6.0])[None, :, None, None].expand(2, 2, 4, 4))
    assert torch.equal(coarse, torch.tensor([[81.0, 54.0], [54.0, 36.0]]).expand(2, 1, 2, 2))


def test_what_comes_after_the_maps_is_not_computed(tmp_path: Path, export_program: Exporter) -> None:
    network = features_of(Staged(), tmp_path / "a.pt2", export_program)
    calls = [str(node.target) for node in network.program.graph.nodes if node.op == "call_function"]
    assert not any("linear" in call or "mean" in call for call in calls)


def test_any_batch_and_any_size_of_images(tmp_path: Path, export_program: Exporter) -> None:
    features = exported_perceptual(export_program(Staged(), tmp_path / "a.pt2"), size=8, allow_code=False)
    assert [tuple(layer.shape) for layer in features(torch.rand(5, 3, 20, 20))] == [
        (5, 1, 8, 8),
        (5, 2, 4, 4),
        (5, 1, 2, 2),
    ]


def test_gradients_reach_the_image_and_no_weight(tmp_path: Path, export_program: Exporter) -> None:
    features = exported_perceptual(export_program(Staged(), tmp_path / "a.pt2"), size=8, allow_code=False)
    images = torch.full((1, 3, 8, 8), 0.9, requires_grad=True)
    sum(layer.sum() for layer in features(images)).backward()
    assert images.grad is not None
    assert (images.grad > 0).all()
    assert not any(parameter.requires_grad for parameter in features.parameters())


def test_train_passes_the_program_by(tmp_path: Path, export_program: Exporter) -> None:
    features = exported_perceptual(export_program(Staged(), tmp_path / "a.pt2"), size=8, allow_code=False)
    images = torch.rand(1, 3, 8, 8)
    before = features(images)
    assert all(map(torch.equal, features.train()(images), before))


def test_a_program_without_maps_is_refused(tiny_program: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"(?s)`path` should be a program whose layers make maps"):
        exported_perceptual(tiny_program, size=8, allow_code=False)


def test_another_size_is_refused(tmp_path: Path, export_program: Exporter) -> None:
    with pytest.raises(InvalidSetting, match=r"(?s)`path` should take images \(B, 3, 9, 9\).*Is `size` right"):
        exported_perceptual(export_program(Staged(), tmp_path / "a.pt2"), size=9, allow_code=False)


def test_a_file_that_could_run_code_is_refused(tmp_path: Path, export_program: Exporter) -> None:
    with pytest.raises(UnsafeArchive):
        exported_perceptual(export_program(Staged(), tmp_path / "a.pt2", keep_inputs=True), size=8, allow_code=False)


@pytest.mark.parametrize(
    ("name", "size", "sides"),
    [
        ("imagenet/squeezenet1_0", 227, [111, 55, 27, 13]),
        ("imagenet/efficientnet_lite0", 224, [112, 56, 28, 14, 7]),
        ("face/mobileface", 112, [56, 28, 14, 7, 4]),
    ],
)
def test_published_networks_have_their_stages(shared_models: Path, name: str, size: int, sides: list[int]) -> None:
    features = exported_perceptual(shared_models / f"{name}.pt2", size=size, allow_code=False)
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert [layer.shape[-1] for layer in features(image)] == sides
    near, far = (perceptual_distance(features, image, image * share) for share in (0.99, 0.5))
    assert 0 < near < far
