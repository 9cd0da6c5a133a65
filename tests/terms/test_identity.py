import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import (
    IdentityCosine,
    IdentityMargin,
    IdentitySoftMargin,
    identity_distance,
    identity_margin,
    identity_soft_margin,
)

either_margin = pytest.mark.parametrize("formula", [identity_margin, identity_soft_margin])


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


def at(*degrees: float) -> Tensor:
    """Unit vectors in the plane, ``(n, 2)``."""
    angle = torch.deg2rad(torch.tensor(degrees, dtype=torch.float64))
    return torch.stack((angle.cos(), angle.sin()), dim=1)


def test_margin_by_hand() -> None:
    embedding, anchor = at(0, 0, 0), at(60, 0, 180)
    negatives = torch.stack([at(90, 120), at(60, 90), at(0, 90)])
    found = identity_margin(embedding, anchor, negatives, margin=0.4)
    torch.testing.assert_close(found, torch.tensor([0.0, 0.0, 2.4], dtype=torch.float64))
    found = identity_margin(embedding, anchor, negatives, margin=0.6)
    torch.testing.assert_close(found, torch.tensor([0.1, 0.1, 2.6], dtype=torch.float64))


def test_soft_margin_by_hand() -> None:
    # cosines 1/2 and 0 under scale 2: log(e + 1) / 2.
    found = identity_soft_margin(at(0), at(90), at(60, 90)[None], margin=0.3, scale=2.0)
    assert found.item() == pytest.approx(0.3 + math.log(math.e + 1) / 2)


def test_lengths_do_not_count_for_margins() -> None:
    embedding, anchor, negatives = torch.randn(4, 6), torch.randn(4, 6), torch.randn(4, 3, 6)
    for formula in (identity_margin, identity_soft_margin):
        torch.testing.assert_close(
            formula(2 * embedding, 3 * anchor, negatives / 5), formula(embedding, anchor, negatives)
        )


def test_soft_margin_is_above_the_hard_one_by_log_n_over_scale_at_most() -> None:
    embedding, anchor = torch.randn(30, 6, dtype=torch.float64), torch.randn(30, 6, dtype=torch.float64)
    negatives = torch.randn(30, 64, 6, dtype=torch.float64)
    hard = identity_margin(embedding, anchor, negatives, margin=2.0)  # no hinge closes
    soft = identity_soft_margin(embedding, anchor, negatives, margin=2.0)
    assert (soft > hard).all()
    assert (soft <= hard + math.log(64) / 64).all()


def test_a_scale_that_is_stored_and_not_used_is_far_off() -> None:
    embedding, anchor, negatives = at(0), at(0), at(90)[None].expand(1, 64, 2)
    fault = (0.4 + at(90)[:, 0].expand(64).logsumexp(0) - 1).clamp(min=0)  # "self.scale = 64", and no scale in the sum
    assert fault.item() == pytest.approx(math.log(64) - 0.6)  # never satisfied: the rivals are at right angles
    assert identity_soft_margin(embedding, anchor, negatives).tolist() == [0.0]


def test_several_near_rivals_push_in_the_soft_form_and_one_in_the_hard() -> None:
    negatives = at(10, 11, 120)[None].requires_grad_()
    pushes = []
    for formula in (identity_margin, identity_soft_margin):
        (gradient,) = torch.autograd.grad(formula(at(0), at(90), negatives).sum(), negatives)
        pushes.append((gradient[0].norm(dim=1) > 1e-3).tolist())
    assert pushes == [[True, False, False], [True, True, False]]


@either_margin
def test_an_image_without_negatives_has_a_rival_opposite_to_it(formula: Callable[..., Tensor]) -> None:
    embedding, anchor = at(0, 0), at(0, 180)
    expected = torch.tensor([0.0, 0.4 - 1 + 1], dtype=torch.float64)
    none, absent = torch.zeros(2, 0, 2).double(), torch.zeros(2, 3, dtype=torch.bool)
    torch.testing.assert_close(formula(embedding, anchor, none), expected)
    torch.testing.assert_close(formula(embedding, anchor, at(0, 0, 0).expand(2, 3, 2), absent), expected)


@either_margin
def test_absent_negatives_count_for_nothing(formula: Callable[..., Tensor]) -> None:
    embedding, anchor, negatives = torch.randn(3, 6), torch.randn(3, 6), torch.randn(3, 5, 6)
    present = torch.tensor([True, False, True, False, False]).expand(3, 5)
    torch.testing.assert_close(
        formula(embedding, anchor, negatives, present, margin=1.5),
        formula(embedding, anchor, negatives[:, [0, 2]], margin=1.5),
    )


@either_margin
def test_gradient_is_a_number_where_negatives_are_absent(formula: Callable[..., Tensor]) -> None:
    embedding = torch.randn(2, 6, requires_grad=True)
    present = torch.tensor([[False, False], [True, False]])
    formula(embedding, torch.randn(2, 6), torch.randn(2, 2, 6), present, margin=2.0).sum().backward()
    assert embedding.grad is not None
    assert embedding.grad.isfinite().all()


def test_maximum_over_the_batch_would_give_every_image_the_same_negative() -> None:
    # The first image is at right angles to its own negative; the second sits on its own.
    embedding, anchor, negatives = at(0, 90), at(0, 90), torch.stack([at(90), at(90)])
    cosines = torch.einsum("bd,bnd->bn", embedding, negatives)
    fault = (0.4 + cosines.max() - 1).clamp(min=0).expand(2)
    torch.testing.assert_close(fault, torch.tensor([0.4, 0.4], dtype=torch.float64))
    ours = identity_margin(embedding, anchor, negatives)
    torch.testing.assert_close(ours, torch.tensor([0.0, 0.4], dtype=torch.float64))


def test_own_class_among_the_negatives_makes_the_loss_the_margin_forever() -> None:
    anchor = F.normalize(torch.randn(1, 6, dtype=torch.float64), dim=1)
    embeddings = torch.cat([anchor, torch.randn(50, 6, dtype=torch.float64)])
    others = -anchor[:, None].expand(51, 1, 6)
    fault = identity_margin(embeddings, anchor.expand(51, 6), anchor.expand(51, 1, 6), margin=0.4)
    assert (fault >= 0.4 - 1e-12).all()  # whatever the image shows
    assert identity_margin(embeddings, anchor.expand(51, 6), others, margin=0.4)[0] == 0


def test_forms_in_circulation_that_do_not_run() -> None:
    with pytest.raises(TypeError, match="keepdim"):
        F.normalize(torch.ones(2, 3), dim=1, keepdim=True)  # type: ignore[call-arg]
    vector = torch.ones(3)
    assert vector.t().shape == (3,)  # no row
    assert vector[None].shape == (1, 3)
    torch.testing.assert_close(F.normalize(torch.ones(2, 3), dim=1).norm(dim=1), torch.ones(2))


@pytest.mark.parametrize("term", [IdentityMargin(margin=1.0), IdentitySoftMargin(margin=1.0, scale=10.0)])
def test_margin_terms_are_the_formulas(term: IdentityMargin | IdentitySoftMargin) -> None:
    embedding, anchor, negatives = torch.randn(3, 4), torch.randn(3, 4), torch.randn(3, 5, 4)
    present = torch.rand(3, 5) > 0.3
    candidate = replace(candidate_with(embedding, anchor), negatives=negatives, negatives_present=present)
    if isinstance(term, IdentityMargin):
        expected = identity_margin(embedding, anchor, negatives, present, margin=1.0)
    else:
        expected = identity_soft_margin(embedding, anchor, negatives, present, margin=1.0, scale=10.0)
    assert torch.equal(term(candidate), expected)


@pytest.mark.parametrize("term", [IdentityMargin(margin=2.0), IdentitySoftMargin(margin=2.0)])
def test_only_the_image_gets_a_gradient(term: IdentityMargin | IdentitySoftMargin) -> None:
    embedding, label, bank = (torch.randn(*shape, requires_grad=True) for shape in ((3, 4), (3, 4), (3, 5, 4)))
    term(replace(candidate_with(embedding, label), negatives=bank)).sum().backward()
    assert embedding.grad is not None
    assert label.grad is None
    assert bank.grad is None


@pytest.mark.parametrize(
    ("negatives", "present", "message"),
    [
        (torch.zeros(5, 4), None, r"`negatives` should have each image's own vectors, shape \(3, N, 4\)"),
        (torch.zeros(1, 5, 4), None, "`negatives` should have"),
        (torch.zeros(3, 5, 2), None, "`negatives` should have"),
        (torch.zeros(3, 5, 4), torch.ones(3, 4, dtype=torch.bool), r"`present` should say True or False .* \(3, 5\)"),
        (torch.zeros(3, 5, 4), torch.ones(3, 5), "`present` should say"),
    ],
)
@either_margin
def test_negatives_are_refused(
    formula: Callable[..., Tensor], negatives: Tensor, present: Tensor | None, message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        formula(torch.ones(3, 4), torch.ones(3, 4), negatives, present)


@pytest.mark.parametrize("margin", [-0.1, 2.1, math.nan])
def test_margin_is_refused_before_any_work(margin: float) -> None:
    for term in (IdentityMargin, IdentitySoftMargin):
        with pytest.raises(InvalidSetting, match=r"`margin` should be in \[0, 2\]"):
            term(margin=margin)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scale_is_refused_before_any_work(scale: float) -> None:
    with pytest.raises(InvalidSetting, match=r"`scale` should be a finite number above 0. Found"):
        IdentitySoftMargin(scale=scale)


def test_needs_negatives() -> None:
    with pytest.raises(InvalidSetting, match=r"`negatives` should be filled .* Found None. The loop draws them"):
        IdentityMargin()(candidate_with(torch.ones(1, 4), torch.ones(1, 4)))
