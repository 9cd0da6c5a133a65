import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.classifier import Classifier, last_linear, resized


class ChannelMeans(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def linear(rows: list[list[float]]) -> nn.Linear:
    layer = nn.Linear(len(rows[0]), len(rows), bias=False)
    layer.load_state_dict({"weight": torch.tensor(rows)})
    return layer


def network() -> nn.Module:
    return nn.Sequential(ChannelMeans(), linear([[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]]))


def plain(*colour: float, side: int = 4) -> Tensor:
    return torch.tensor(colour)[None, :, None, None].expand(-1, -1, side, side).clone()


def test_logits_and_features_by_hand() -> None:
    logits, features = Classifier(network(), size=4, fingerprint="f")(plain(0.1, 0.2, 0.3))
    torch.testing.assert_close(logits, torch.tensor([[1.4, -0.3]]))
    torch.testing.assert_close(features, torch.tensor([[0.1, 0.2, 0.3]]))


def test_images_are_resized_and_normalised() -> None:
    classifier = Classifier(network(), size=4, fingerprint="f", mean=(0.1, 0.1, 0.1), std=(0.5, 0.25, 1.0))
    features = classifier(plain(0.1, 0.2, 0.3, side=9)).features
    torch.testing.assert_close(features, torch.tensor([[0.0, 0.4, 0.2]]))


def test_any_size_passes_where_none_is_wanted() -> None:
    seen: list[tuple[int, ...]] = []
    model = network()
    model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape)))
    Classifier(model, size=None, fingerprint="f")(plain(0.1, 0.2, 0.3, side=7))
    assert seen == [(1, 3, 7, 7)]


def test_the_last_of_several_linear_layers_gives_the_features() -> None:
    model = nn.Sequential(network(), nn.ReLU(), linear([[1.0, 0.0], [0.0, 2.0]]))
    assert last_linear(model) is model[2]
    logits, features = Classifier(model, size=None, fingerprint="f")(plain(0.1, 0.2, 0.3))
    torch.testing.assert_close(features, torch.tensor([[1.4, 0.0]]))
    torch.testing.assert_close(logits, torch.tensor([[1.4, 0.0]]))


def test_rows_of_the_classes_are_the_last_layers() -> None:
    rows = Classifier(network(), size=None, fingerprint="f").class_rows
    assert rows is not None
    assert rows.tolist() == [[1.0, 2.0, 3.0], [0.0, 0.0, -1.0]]
    assert Classifier(network(), size=None, fingerprint="f", no_features="hidden").class_rows is None
    assert Classifier(ChannelMeans(), size=None, fingerprint="f").class_rows is None


def test_a_model_without_linear_layers_says_so() -> None:
    classifier = Classifier(ChannelMeans(), size=None, fingerprint="f")
    assert classifier(plain(0.1, 0.2, 0.3)).features is None
    assert classifier.no_features is not None
    assert "no linear layer" in classifier.no_features


def test_features_can_be_switched_off_or_brought_along() -> None:
    without = Classifier(network(), size=None, fingerprint="f", no_features="hidden")
    assert without(plain(0.1, 0.2, 0.3)).features is None
    model = network()
    brought = Classifier(model, size=None, fingerprint="f", both=lambda x: (model(x), x.mean((2, 3)) + 1))
    torch.testing.assert_close(brought(plain(0.1, 0.2, 0.3)).features, torch.tensor([[1.1, 1.2, 1.3]]))


def test_nothing_of_a_pass_is_kept() -> None:
    classifier = Classifier(network(), size=None, fingerprint="f")
    classifier(plain(0.1, 0.2, 0.3).requires_grad_())
    assert classifier._hooked is None


def test_gradients_reach_the_images_alone() -> None:
    classifier = Classifier(network(), size=2, fingerprint="f")
    images = torch.rand(1, 3, 4, 4, requires_grad=True)
    classifier.logits(images)[0, 0].backward()
    assert images.grad is not None
    torch.testing.assert_close(images.grad.sum((0, 2, 3)), torch.tensor([1.0, 2.0, 3.0]))
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_other_outputs_than_logits_are_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"logits of shape \(B, C\)"):
        Classifier(nn.Conv2d(3, 2, 1), size=None, fingerprint="f")(plain(0.1, 0.2, 0.3))


def test_resized_averages_without_aliasing() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(8).expand(1, 3, 16, 16)
    small = resized(stripes, 4)
    assert small.shape == (1, 3, 4, 4)
    assert (small - 0.5).abs().max() < 0.1
    assert resized(stripes, 16) is stripes
    assert resized(stripes, None) is stripes
