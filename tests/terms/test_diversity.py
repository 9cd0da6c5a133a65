import warnings

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.judging.diversity import embedding_variance
from diffaudit.objective import Entry, Objective
from diffaudit.terms import (
    Attributes,
    Diversity,
    HierarchicalPerceptual,
    attribute_distance,
    embedding_concentration,
    hierarchical_distance,
)
from diffaudit.weighting import Fixed


def candidate_with(embedding: Tensor | None, target: Tensor) -> Candidate:
    image = torch.zeros(len(target), 3, 4, 4)
    return Candidate(image=image, source=image, target=target, logits=torch.zeros(len(target), 9), embedding=embedding)


def test_by_hand() -> None:
    embedding = torch.tensor([[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [-3.0, 0.0], [0.6, 0.8], [6.0, 8.0], [0.0, -1.0]])
    found = embedding_concentration(embedding, torch.tensor([7, 7, 2, 2, 5, 5, 4]))
    torch.testing.assert_close(found, torch.tensor([0.5, 0.5, 0.0, 0.0, 1.0, 1.0, 0.0]))


def test_is_one_minus_the_variance_that_judges_measure() -> None:
    embedding, target = torch.randn(12, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1, 8, 8, 2])
    expected = 1 - embedding_variance(embedding, target)
    torch.testing.assert_close(embedding_concentration(embedding, target), expected)


def test_is_the_mean_cosine_of_all_pairs_of_the_class() -> None:
    embedding = F.normalize(torch.randn(6, 4, dtype=torch.float64), dim=1)
    expected = (embedding @ embedding.T).mean().expand(6)
    torch.testing.assert_close(embedding_concentration(embedding, torch.full((6,), 3)), expected)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_largest_variance_of_unit_vectors_is_one(count: int) -> None:
    angles = 2 * torch.pi * torch.arange(count, dtype=torch.float64) / count
    embedding = torch.stack((angles.cos(), angles.sin()), dim=1)
    assert embedding_concentration(embedding, torch.zeros(count, dtype=torch.long)).abs().max() < 1e-15


def test_classes_do_not_mix() -> None:
    embedding = torch.randn(6, 4, requires_grad=True)
    value = embedding_concentration(embedding, torch.tensor([0, 1, 0, 1, 2, 0]))
    for row, mates in ((0, [0, 2, 5]), (1, [1, 3]), (4, [])):
        (gradient,) = torch.autograd.grad(value[row], embedding, retain_graph=True)
        assert gradient.norm(dim=1).nonzero()[:, 0].tolist() == mates


def test_descent_spreads_the_images_of_a_class() -> None:
    embedding = torch.tensor([[1.0, 0.1], [1.0, -0.1]], requires_grad=True)
    target = torch.tensor([0, 0])
    (gradient,) = torch.autograd.grad(embedding_concentration(embedding, target).mean(), embedding)
    after = embedding_concentration(embedding - 0.1 * gradient, target)
    assert (after < embedding_concentration(embedding, target)).all()


def test_negative_variance_drives_a_learned_weight_without_end() -> None:
    # Kendall's sum L/(2 sigma^2) + log(sigma^2)/2, along sigma to 0.
    embedding, target = torch.tensor([[1.0, 0.0], [0.0, 1.0]], dtype=torch.float64), torch.tensor([0, 0])
    log_variance = torch.linspace(2, -8, 200, dtype=torch.float64)

    def learned_sum(value: Tensor) -> Tensor:
        return value * (-log_variance).exp() / 2 + log_variance / 2

    ours = embedding_concentration(embedding, target)[0]
    assert (learned_sum(ours - 1).diff() < 0).all()  # 1 - variance is 0.5, minus the variance is -0.5
    assert 0 < learned_sum(ours).argmin() < 199
    assert ours >= Diversity.lower_bound == 0.0


def test_a_class_with_one_image_is_0_and_said_once() -> None:
    term = Diversity()
    candidate = candidate_with(torch.randn(4, 3), torch.tensor([0, 0, 1, 2]))
    with pytest.warns(UserWarning, match="2 of 3 classes have one image in a batch of 4: their diversity is 0") as told:
        values = term(candidate)
    assert len(told) == 1
    assert values[2:].tolist() == [0.0, 0.0]
    assert (values[:2] > 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(term(candidate), values)


def test_nothing_is_said_where_every_class_has_two() -> None:
    embedding, target = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    assert torch.equal(Diversity()(candidate_with(embedding, target)), embedding_concentration(embedding, target))


def test_needs_embeddings() -> None:
    with pytest.raises(InvalidSetting, match="`embedding` should be filled in the candidate"):
        Diversity()(candidate_with(None, torch.tensor([0, 0])))


@pytest.mark.parametrize(
    ("embedding", "target", "message"),
    [
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.long), "`target` should be one integer per image, 2 in all."),
        (torch.zeros(2, 3), torch.zeros(2), "`target` should be .* Found .*float32"),
        (torch.zeros(2), torch.zeros(2, dtype=torch.long), "`embedding` should be a floating matrix"),
    ],
)
def test_refusals(embedding: Tensor, target: Tensor, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        embedding_concentration(embedding, target)


def test_the_combined_term_is_three_entries_of_one_group() -> None:
    def light(images: Tensor) -> dict[str, Tensor]:
        return {"illumination": images.mean((2, 3))}

    def layers(images: Tensor) -> list[Tensor]:
        return [images, images[..., ::2, ::2], images[..., ::4, ::4]]

    image, source = torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    embedding, target = torch.randn(2, 4), torch.tensor([1, 1])
    objective = Objective(
        [
            Entry(name="attr", group="perc", term=Attributes(light, {"illumination": 0.2}), factor=0.6),
            Entry(name="perc", group="perc", term=HierarchicalPerceptual(layers), factor=0.4),
            Entry(name="div", group="perc", term=Diversity(), factor=0.1),
        ],
        Fixed({"perc": 0.5}),
    )
    candidate = Candidate(image=image, source=source, target=target, logits=torch.zeros(2, 2), embedding=embedding)
    attributes = attribute_distance(light(image), light(source), {"illumination": 0.2})
    perceptual = hierarchical_distance(layers(image), layers(source))
    diversity = embedding_concentration(embedding, target)
    scored = objective(candidate, step=0)
    torch.testing.assert_close(scored.value, 0.5 * (0.6 * attributes + 0.4 * perceptual + 0.1 * diversity))
    assert list(scored.parts) == ["attr", "perc", "div"]
