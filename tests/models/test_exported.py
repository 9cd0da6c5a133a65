import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, UnsafeArchive
from diffaudit.models.exported import exported_classifier, exported_encoder

Exporter = Callable[..., Path]


class ConvolutionHead(nn.Module):
    """The SqueezeNet form: a convolution gives maps of logits, which are averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]])[:, :, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.relu(self.head(images)).mean((2, 3))


class Headless(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def bands(*colours: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, 8, 8).clone()


def test_logits_and_features_by_hand(tiny_program: Path) -> None:
    classifier = exported_classifier(tiny_program, size=8, allow_code=False)
    logits, features = classifier(bands((0.1, 0.0, 0.0), (0.0, 0.2, 0.3)))
    # Batch norm of fresh statistics divides by sqrt(1 + 1e-5).
    torch.testing.assert_close(features, torch.tensor([[1.0, 0, 0], [0, 2, 3]]), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, torch.tensor([[1.5, 0.0], [13.5, -3.0]]), rtol=1e-5, atol=1e-5)
    assert classifier.no_features is None


def test_maps_before_a_convolution_are_averaged(tmp_path: Path, export_program: Exporter) -> None:
    classifier = exported_classifier(export_program(ConvolutionHead(), tmp_path / "a.pt2"), size=8, allow_code=False)
    images = torch.rand(2, 3, 8, 8)
    logits, features = classifier(images)
    torch.testing.assert_close(features, images.mean((2, 3)))
    assert logits.shape == (2, 2)


def test_no_features_says_why(tmp_path: Path, export_program: Exporter) -> None:
    without = exported_classifier(export_program(Headless(), tmp_path / "a.pt2"), size=8, allow_code=False)
    assert without(torch.rand(2, 3, 8, 8)).features is None
    assert without.no_features is not None
    assert "no linear layer or convolution" in without.no_features
    early = nn.Sequential(nn.Conv2d(3, 4, 1), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    other = exported_classifier(export_program(early, tmp_path / "b.pt2"), size=8, allow_code=False)
    outputs = other(torch.rand(2, 3, 8, 8))
    assert outputs.features is None
    assert outputs.logits.shape == (2, 16)
    assert other.no_features is not None
    assert "last linear layer or convolution gives" in other.no_features


def test_train_and_eval_pass_the_program_by(tiny_program: Path) -> None:
    classifier = exported_classifier(tiny_program, size=8, allow_code=False)
    encoder = exported_encoder(tiny_program, size=8, allow_code=False)
    house = nn.ModuleList([classifier, encoder])
    images = torch.rand(2, 3, 8, 8)
    before = classifier.logits(images)
    assert torch.equal(house.train().eval()[0](images).logits, before)
    assert torch.equal(house.train()[0](images).logits, before)


def test_a_change_of_type_reaches_the_program(tiny_program: Path) -> None:
    classifier = exported_classifier(tiny_program, size=8, allow_code=False).double()
    logits, features = classifier(torch.rand(2, 3, 8, 8, dtype=torch.float64))
    assert logits.dtype == torch.float64
    assert features is not None
    assert features.dtype == torch.float64


def test_gradients_reach_the_images_and_no_weight(tiny_program: Path) -> None:
    classifier = exported_classifier(tiny_program, size=8, allow_code=False)
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    classifier(images).logits[0, 0].backward()
    assert images.grad is not None
    # d logit / d pixel = 10 * weight / (64 pixels) / sqrt(1 + 1e-5)
    torch.testing.assert_close(images.grad[0, :, 0, 0], torch.tensor([1.0, 2.0, 3.0]) * 10 / 64, rtol=1e-4, atol=0)
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_images_of_other_sizes_are_resized(tiny_program: Path) -> None:
    classifier = exported_classifier(tiny_program, size=8, allow_code=False)
    large = nn.functional.interpolate(bands((0.1, 0.0, 0.0)), scale_factor=3.0)
    torch.testing.assert_close(classifier.logits(large), torch.tensor([[1.5, 0.0]]), rtol=1e-4, atol=1e-4)


def test_the_encoder_normalises(tiny_program: Path) -> None:
    encoder = exported_encoder(tiny_program, size=8, allow_code=False)
    assert encoder.dimension == 2
    expected = torch.tensor([[1.0, 0.0], [13.5, -3.0]])
    found = encoder(bands((0.1, 0.0, 0.0), (0.0, 0.2, 0.3)))
    torch.testing.assert_close(found, nn.functional.normalize(expected, dim=1), rtol=1e-4, atol=1e-4)


def test_the_fingerprint_is_that_of_the_file(tiny_program: Path) -> None:
    expected = hashlib.sha256(tiny_program.read_bytes()).hexdigest()
    assert exported_classifier(tiny_program, size=8, allow_code=False).fingerprint == expected
    assert exported_encoder(tiny_program, size=8, allow_code=False).fingerprint == expected


def test_sample_inputs_need_leave(tmp_path: Path, export_program: Exporter) -> None:
    path = export_program(Headless(), tmp_path / "a.pt2", keep_inputs=True)
    with pytest.raises(UnsafeArchive, match="pickled sample inputs"):
        exported_classifier(path, size=8, allow_code=False)
    assert exported_classifier(path, size=8, allow_code=True).logits(torch.rand(1, 3, 8, 8)).shape == (1, 3)


@pytest.mark.parametrize("allow_code", [False, True])
def test_what_is_no_program_is_an_invalid_setting(tmp_path: Path, allow_code: bool) -> None:
    with pytest.raises(InvalidSetting, match="no such file"):
        exported_classifier(tmp_path / "missing.pt2", size=8, allow_code=allow_code)
    (tmp_path / "text.pt2").write_text("no archive")
    with pytest.raises(InvalidSetting, match=r"torch\.export\.save"):
        exported_classifier(tmp_path / "text.pt2", size=8, allow_code=allow_code)


def test_another_size_is_an_invalid_setting(tiny_program: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"take images \(B, 3, 16, 16\).*Is `size` right"):
        exported_classifier(tiny_program, size=16, allow_code=False)


def test_other_outputs_are_an_invalid_setting(tmp_path: Path, export_program: Exporter) -> None:
    path = export_program(nn.Conv2d(3, 4, 1), tmp_path / "maps.pt2")
    with pytest.raises(InvalidSetting, match="one tensor"):
        exported_encoder(path, size=8, allow_code=False)


@pytest.mark.parametrize(
    ("name", "size", "features"),
    [
        ("imagenet/mobilenet_v1_025_128.pt2", 128, 256),
        ("imagenet/squeezenet1_1.pt2", 227, 512),
    ],
)
def test_shared_classifiers(shared_models: Path, name: str, size: int, features: int) -> None:
    classifier = exported_classifier(shared_models / name, size=size, allow_code=False).eval()
    images = torch.rand(2, 3, 64, 64, requires_grad=True)
    outputs = classifier(images)
    assert outputs.logits.shape == (2, 1000)
    assert outputs.features is not None
    assert outputs.features.shape == (2, features)
    (gradient,) = torch.autograd.grad(outputs.logits.sum(), images)
    assert gradient.abs().amax((1, 2, 3)).min() > 0
    direct = torch.export.load(shared_models / name).module()
    resized = nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True)
    torch.testing.assert_close(outputs.logits, direct(resized))


@pytest.mark.parametrize(("name", "dimension"), [("face/mobilefacenet.pt2", 128), ("face/mobileface.pt2", 256)])
def test_shared_encoders(shared_models: Path, name: str, dimension: int) -> None:
    encoder = exported_encoder(shared_models / name, size=112, allow_code=False).eval()
    assert encoder.dimension == dimension
    torch.testing.assert_close(encoder(torch.rand(2, 3, 112, 112)).norm(dim=1), torch.ones(2))
