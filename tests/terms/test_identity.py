from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import IdentityCosine, identity_distance


def candidate_with(embedding: Tensor, anchor: Tensor) -> Candidate:
    image = torch.zeros(len(embedding), 3, 4, 4)
    target = torch.zeros(len(embedding), dtype=torch.long)
    logits = torch.zeros(len(embedding), 2)
    return Candidate(image=image, source=image, target=target, logits=logits, embedding=embedding, anchor=anchor)


def test_by_hand() -> None:
    embedding = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.6, 0.8]])
    anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(identity_distance(embedding, anchor), torch.tensor([0.0, 1.0, 2.0, 0.4]))


def test_is_one_minus_the_reference_cosine() -> None:
    embedding, anchor = torch.randn(20, 9, dtype=torch.float64), torch.randn(20, 9, dtype=torch.float64)
    torch.testing.assert_close(identity_distance(embedding, anchor), 1 - F.cosine_similarity(embedding, anchor))


def test_lengths_do_not_count() -> None:
    embedding, anchor = torch.randn(5, 9, dtype=torch.float64), torch.randn(5, 9, dtype=torch.float64)
    torch.testing.assert_close(identity_distance(3 * embedding, anchor / 7), identity_distance(embedding, anchor))


def test_rounding_never_makes_it_negative() -> None:
    embedding = F.normalize(torch.randn(1000, 128, generator=torch.Generator().manual_seed(0)), dim=1)
    assert (1 - (embedding * embedding).sum(1)).min() < 0
    assert identity_distance(embedding, embedding.clone()).tolist() == [0.0] * 1000


def test_gradient_vanishes_like_the_sine_of_the_angle() -> None:
    angle = torch.tensor([0.01, 0.1, 1.0, 3.0], dtype=torch.float64)
    embedding = torch.stack((angle.cos(), angle.sin()), dim=1).requires_grad_()
    anchor = torch.tensor([[1.0, 0.0]], dtype=torch.float64).expand(4, 2)
    (gradient,) = torch.autograd.grad(identity_distance(embedding, anchor).sum(), embedding)
    torch.testing.assert_close(gradient.norm(dim=1), angle.sin())


def test_anchor_gets_no_gradient() -> None:
    label = torch.randn(3, 4, requires_grad=True)
    embedding = torch.randn(3, 4, requires_grad=True)
    candidate = candidate_with(embedding, F.normalize(label, dim=1))
    IdentityCosine()(candidate).sum().backward()
    assert embedding.grad is not None
    assert label.grad is None


def test_undetached_anchor_would_walk_to_the_image() -> None:
    label = torch.tensor([[1.0, 0.0]], requires_grad=True)
    image = torch.tensor([[0.0, 1.0]])
    identity_distance(image, label).sum().backward()
    assert label.grad is not None
    assert (-label.grad * image).sum() > 0


def test_term_is_the_formula() -> None:
    embedding, anchor = torch.randn(3, 4), torch.randn(3, 4)
    assert torch.equal(IdentityCosine()(candidate_with(embedding, anchor)), identity_distance(embedding, anchor))


def test_one_anchor_for_all_images_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`embedding` should have .* `anchor`, \(1, 4\). Found \(3, 4\)."):
        identity_distance(torch.zeros(3, 4), torch.zeros(1, 4))


@pytest.mark.parametrize("name", ["embedding", "anchor"])
def test_needs_both(name: str) -> None:
    missing: dict[str, Any] = {name: None}
    candidate = replace(candidate_with(torch.ones(1, 4), torch.ones(1, 4)), **missing)
    with pytest.raises(InvalidSetting, match=f"`{name}` should be filled in the candidate .* Found None."):
        IdentityCosine()(candidate)
