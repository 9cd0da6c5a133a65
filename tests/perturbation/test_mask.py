import pytest
import torch
from torch import Tensor, nn

from diffaudit.attention import AttentionBranch, AttentionLayer
from diffaudit.errors import InvalidSetting
from diffaudit.models.bundled import bundled_folder, load_network
from diffaudit.models.classifier import Classifier
from diffaudit.models.networks import build_network
from diffaudit.perturbation.mask import attention_mask, blend, grad_cam, label_attention


class OneChannel(nn.Module):
    """Class 0 is the mean of red, class 1 minus that: the last feature maps are the image's own channels."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = nn.Conv2d(3, 3, 1, bias=False)
        self.head = nn.Linear(3, 2, bias=False)
        with torch.no_grad():
            self.maps.weight.copy_(torch.eye(3)[:, :, None, None])
            self.head.weight.copy_(torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.maps(images).mean((2, 3)))
        return logits


class Pooled(OneChannel):
    """The same, averaged over a grid of its own first, whose cells the head averages."""

    def __init__(self, *grid: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(grid)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.maps(images)).mean((2, 3)))
        return logits


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 4, 2, stride=2)
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.patches(images).flatten(2).transpose(1, 2)).mean(1))
        return logits


class Permuted(nn.Module):
    """``(B, C, h, w)`` to ``(B, h, w, C)``, as in Swin transformers."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps.permute(0, 2, 3, 1)


def classifier(model: nn.Module) -> Classifier:
    return Classifier(model.eval(), size=None, fingerprint="")


def test_attention_by_hand() -> None:
    maps = torch.tensor([[0.1, 0.2, 0.3, 0.5], [0.4, 0.4, 0.4, 0.4]], requires_grad=True)
    soft = attention_mask(maps, 2)
    assert not soft.requires_grad
    torch.testing.assert_close(soft[:, 0].flatten(1), torch.tensor([[0.0, 0.25, 0.5, 1.0], [1.0, 1.0, 1.0, 1.0]]))
    assert attention_mask(maps, 2, threshold=0.5)[0].flatten().tolist() == [0.0, 0.0, 1.0, 1.0]
    assert attention_mask(maps, 8).shape == (2, 1, 8, 8)


def test_attention_of_layers_by_their_weights() -> None:
    """Two tokens of a label, two steps, a layer that counts thrice on 2 x 2 and one of 1 x 1; a third is not asked."""
    fine, coarse, other = (AttentionLayer(name, "up", "cross", level) for level, name in enumerate("abc"))
    label = torch.tensor([[False, True, True]])

    def maps(*shares: float) -> torch.Tensor:
        half = torch.tensor(shares) / 2
        return torch.stack([1 - 2 * half, half, half], dim=1)[None]

    first = {fine: maps(0.1, 0.2, 0.3, 0.4), coarse: maps(0.5), other: maps(0.9, 0.0, 0.0, 0.0)}
    second = {fine: maps(0.3, 0.2, 0.1, 0.0), coarse: maps(0.1), other: maps(0.9, 0.0, 0.0, 0.0)}
    branch = AttentionBranch(steps=(first, second), label=label)
    found = label_attention(branch, {fine: 3.0, coarse: 1.0})  # (3 * 0.2 + 0.3) / 4
    torch.testing.assert_close(found, torch.full((1, 4), 0.225))
    alone = label_attention(AttentionBranch(steps=(first,), label=label), {fine: 2.0})
    torch.testing.assert_close(alone, torch.tensor([[0.1, 0.2, 0.3, 0.4]]))
    with pytest.raises(InvalidSetting, match="where its cross-attention is not recorded"):
        label_attention(branch, {AttentionLayer("d", "mid", "cross"): 1.0})


def test_grad_cam_in_closed_form() -> None:
    images = torch.rand(2, 3, 4, 4)
    red = images[:, :1]
    least, most = red.amin((2, 3), keepdim=True), red.amax((2, 3), keepdim=True)
    found = grad_cam([classifier(OneChannel())], images, torch.tensor([0, 0]), 4)
    torch.testing.assert_close(found, (red - least) / (most - least))
    # Nothing speaks for class 1: its map is even, and excludes nothing.
    assert grad_cam([classifier(OneChannel())], images, torch.tensor([1, 1]), 4).unique().tolist() == [1.0]


@pytest.mark.parametrize("grid", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_what_is_pooled_to_a_grid_shows_no_places(grid: tuple[int, int]) -> None:
    """An object in one corner is found in that corner; halves of the picture could not tell left from right."""
    images = torch.zeros(1, 3, 8, 8)
    images[..., :4, :4] = 1.0
    found = grad_cam([classifier(Pooled(*grid))], images, torch.tensor([0]), 4)
    assert found[0, 0].tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_bundled_models_of_hair_look_left_and_right() -> None:
    """Their necks average the upper and the lower half: a map of those would be the same in every column."""
    images = torch.full((1, 3, 64, 64), 0.5)
    images[0, :, 8:40, 8:28] = torch.tensor([0.7, 0.1, 0.1])[:, None, None]
    for name in ("hair-residual", "hair-plain", "hair-squeeze", "hair-depthwise", "hair-mixer"):
        network, _ = load_network(bundled_folder(name))
        found = grad_cam([classifier(network)], images, network(images).argmax(1), 8)[0, 0]
        assert (found.amax(1) - found.amin(1)).max() > 0.2


@pytest.mark.parametrize(
    "architecture",
    [*("residual", "plain", "depthwise"), *("small-residual", "small-plain", "small-depthwise", "squeeze", "mixer")],
)
def test_grad_cam_is_that_of_the_last_maps(architecture: str) -> None:
    torch.manual_seed(0)
    network = build_network(architecture, 3).eval()
    images, target = torch.rand(2, 3, 64, 64), torch.tensor([2, 0])
    maps = network.maps(images)[-1]
    logits: Tensor = network.head(network.neck(maps))
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), maps)
    cam = (gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True).relu()
    most, least = cam.amax((1, 2, 3), keepdim=True), cam.amin((1, 2, 3), keepdim=True)
    expected = torch.where(most > least, (cam - least) / (most - least), 1.0)
    model = classifier(network)
    found = grad_cam([model], images, target, maps.shape[-1])
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-5)
    both = grad_cam([model, model], images, target, 8, threshold=0.5)
    assert torch.equal(both, grad_cam([model], images, target, 8, threshold=0.5))
    assert not any(module._forward_hooks for module in network.modules())


def test_models_without_maps_are_refused_with_a_reason() -> None:
    images, target = torch.rand(1, 3, 4, 4), torch.tensor([0])
    with pytest.raises(InvalidSetting, match=r"Found 'one that ends in tokens'\. Take the mask from attention"):
        grad_cam([classifier(Tokens())], images, target, 4)
    last = nn.Sequential(nn.Conv2d(3, 5, 1), Permuted(), nn.Flatten(), nn.Linear(80, 2))
    with pytest.raises(InvalidSetting, match="Found 'one whose channels stand last'"):
        grad_cam([classifier(last)], images, target, 4)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(48, 2))
    with pytest.raises(InvalidSetting, match="Found 'one without modules that return any'"):
        grad_cam([classifier(flat)], images, target, 4)
    with pytest.raises(InvalidSetting, match="`classifiers` should hold at least one"):
        grad_cam([], images, target, 4)


def test_the_background_stays() -> None:
    latents, clean = torch.randn(2, 4, 2, 2), torch.randn(2, 4, 2, 2)
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.5]]).expand(2, 1, 2, 2)
    found = blend(latents, clean, mask)
    assert torch.equal(found[..., 0, 1], clean[..., 0, 1])
    assert torch.equal(found[..., 0, 0], latents[..., 0, 0])
    torch.testing.assert_close(found[..., 1, 1], (latents + clean)[..., 1, 1] / 2)


def test_refusals() -> None:
    latents = torch.zeros(1, 4, 2, 2)
    with pytest.raises(InvalidSetting, match="`clean_latents` should have the latents' shape"):
        blend(latents, latents[:, :2], latents[:, :1])
    with pytest.raises(InvalidSetting, match="`mask` should be one plane per image"):
        blend(latents, latents, latents)
    with pytest.raises(InvalidSetting, match=r"`threshold` should be in \(0, 1\]"):
        attention_mask(torch.rand(1, 4), 2, threshold=0.0)
