import math

import pytest
import torch
from scipy.stats import chi2
from torch import Tensor, nn

from diffaudit.inversion.embedding import LabelEmbedding, ManifoldEmbedding, MlpEmbedding, TableEmbedding

N, D = 5, 8


def unit(*shape: int, seed: int = 0) -> Tensor:
    return nn.functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def full_manifold(anchors: Tensor) -> ManifoldEmbedding:
    """Spread in every direction, so that no anchor is clipped or projected."""
    return ManifoldEmbedding(anchors, 3 * torch.randn(200, D), explained_variance=1.0)


@pytest.mark.parametrize("kind", [TableEmbedding, MlpEmbedding, full_manifold])
def test_embeddings_start_at_the_anchors(kind: type[LabelEmbedding]) -> None:
    torch.manual_seed(1)
    anchors = unit(N, D)
    embedding = kind(anchors)
    rows = torch.tensor([3, 0, 3])
    torch.testing.assert_close(embedding(rows), anchors[rows], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(embedding.anchors, anchors, rtol=1e-4, atol=1e-5)
    assert embedding.travel().max() < 0.1


@pytest.mark.parametrize("kind", [TableEmbedding, MlpEmbedding, full_manifold])
def test_the_anchors_stay_when_the_embedding_moves(kind: type[LabelEmbedding]) -> None:
    torch.manual_seed(1)
    embedding = kind(unit(N, D))
    before = embedding.anchors.clone()
    optimiser = torch.optim.SGD(embedding.parameters(), lr=1.0)
    embedding(torch.arange(N)).square().cumsum(1).sum().backward()
    optimiser.step()
    assert torch.equal(embedding.anchors, before)
    assert embedding.travel().min() > 0.1
    norms = embedding(torch.arange(N)).norm(dim=1)
    torch.testing.assert_close(norms, torch.ones(N))


@pytest.mark.parametrize("kind", [TableEmbedding, MlpEmbedding, full_manifold])
def test_state_dict_round_trip(kind: type[LabelEmbedding]) -> None:
    torch.manual_seed(1)
    first = kind(unit(N, D))
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    second = kind(unit(N, D, seed=9)) if kind is not full_manifold else full_manifold(unit(N, D, seed=9))
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.raw(), first.raw())
    assert torch.equal(second.travel(), first.travel())


def test_travel_is_an_angle_in_degrees() -> None:
    embedding = TableEmbedding(torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    with torch.no_grad():
        embedding.table.copy_(torch.tensor([[0.0, 2.0], [3.0, 3.0], [0.0, -1.0]]))
    torch.testing.assert_close(embedding.travel(), torch.tensor([90.0, 45.0, 180.0]))


def test_travel_tells_small_angles() -> None:
    """A ten-thousandth of a radian, whose cosine is 1 in float32."""
    embedding = TableEmbedding(torch.tensor([[1.0, 0.0]]))
    with torch.no_grad():
        embedding.table[0, 1] = 1e-4
    torch.testing.assert_close(embedding.travel(), torch.rad2deg(torch.tensor([1e-4])))


def test_the_gradient_reaches_the_rows_asked_for_alone() -> None:
    embedding = TableEmbedding(unit(N, D))
    embedding(torch.tensor([1, 3])).square().cumsum(1).sum().backward()
    assert embedding.table.grad is not None
    assert embedding.table.grad.abs().sum(1).nonzero().flatten().tolist() == [1, 3]


def test_the_last_layer_of_the_network_starts_at_zero() -> None:
    embedding = MlpEmbedding(unit(N, D), hidden=7, layers=3)
    linear = [module for module in embedding.body if isinstance(module, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(N, 7), (7, 7), (7, 7), (7, D)]
    assert not linear[-1].weight.any()
    assert not linear[-1].bias.any()
    embedding(torch.arange(N)).square().cumsum(1).sum().backward()
    assert linear[-1].weight.grad is not None
    assert linear[-1].weight.grad.abs().max() > 0


def flat_public(count: int = 500) -> Tensor:
    """Mean (1, 0, ...), standard deviations 0.4, 0.2 and 0.1 along axes 1, 2 and 3, nothing elsewhere."""
    generator = torch.Generator().manual_seed(2)
    public = torch.zeros(count, D, dtype=torch.float64)
    for axis, spread in ((1, 0.4), (2, 0.2), (3, 0.1)):
        values = torch.randn(count, generator=generator, dtype=torch.float64)
        public[:, axis] = spread * (values - values.mean()) / values.std()
    public[:, 0] = 1
    return public


def test_the_manifold_keeps_as_much_variance_as_asked() -> None:
    anchors, public = flat_public()[:3], flat_public()
    # The variances are 0.16, 0.04, 0.01 up to the axes' small correlations: 76 %, 95 % and all of their sum.
    assert ManifoldEmbedding(anchors, public, explained_variance=0.7).dimension == 1
    assert ManifoldEmbedding(anchors, public, explained_variance=0.9).dimension == 2
    assert ManifoldEmbedding(anchors, public, explained_variance=0.99).dimension == 3
    assert ManifoldEmbedding(anchors, public, explained_variance=1.0).dimension == 3


def test_public_embeddings_lie_in_the_manifold() -> None:
    public = flat_public()
    near = public[(public - public.mean(0)).abs().amax(1) < 0.2][:10]
    embedding = ManifoldEmbedding(near, public)
    torch.testing.assert_close(embedding.raw().detach(), near)
    torch.testing.assert_close(embedding.coefficients.detach(), embedding.coefficients.detach().clamp(-2, 2))


def test_coefficients_are_in_standard_deviations() -> None:
    public = flat_public()
    embedding = ManifoldEmbedding(public, public, explained_variance=1.0)
    embedding.coefficients.data = (public - public.mean(0)) @ torch.linalg.pinv(embedding.basis)
    torch.testing.assert_close(embedding.coefficients.std(0), torch.ones(3, dtype=torch.float64))


def test_fewer_pictures_than_dimensions() -> None:
    public = unit(4, D).double()
    embedding = ManifoldEmbedding(public, public, explained_variance=1.0)
    assert embedding.dimension == 3
    assert embedding.raw().isfinite().all()
    torch.testing.assert_close(embedding.raw().detach(), public)


def test_directions_outside_the_public_spread_do_not_exist() -> None:
    public = flat_public()
    anchor = public[:1].clone()
    anchor[0, 6] = 5.0
    embedding = ManifoldEmbedding(anchor, public)
    assert embedding.raw()[0, 6] == 0
    assert embedding.travel()[0] < 0.1


def test_confine_pulls_back_to_the_radius_that_holds_99_percent() -> None:
    public = flat_public()
    embedding = ManifoldEmbedding(public[:2], public, explained_variance=1.0)
    assert embedding.radius == pytest.approx(math.sqrt(chi2.ppf(0.99, 3)))
    inside = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    embedding.coefficients.data = torch.stack([inside, 100 * inside])
    embedding.confine()
    assert torch.equal(embedding.coefficients[0], inside)
    torch.testing.assert_close(embedding.coefficients[1], embedding.radius * inside / inside.norm())
    gaussian = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(3)).norm(dim=1)
    assert (gaussian < embedding.radius).double().mean() == pytest.approx(0.99, abs=0.004)


def test_far_anchors_start_on_the_rim() -> None:
    public = flat_public()
    anchor = public.mean(0, keepdim=True).clone()
    anchor[0, 1] += 40.0
    embedding = ManifoldEmbedding(anchor, public)
    assert float(embedding.coefficients.detach().norm()) == pytest.approx(embedding.radius)
    assert embedding.travel()[0] < 0.1
