import math
from typing import Any

import pytest
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.objective import Entry, Objective
from diffaudit.terms import (
    BatchTerm,
    FeatureCentre,
    IdentityCosine,
    ParameterTerm,
    Regulariser,
    Term,
    TopK,
    feature_distance,
    identity_distance,
    topk_margin,
)
from diffaudit.weighting import Fixed, Staged, StageWeights


class Brightness(Term):
    """Mean of each image times ``scale``, counting its calls and whether they could be differentiated."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale
        self.calls: list[bool] = []

    def forward(self, candidate: Candidate) -> Tensor:
        self.calls.append(torch.is_grad_enabled())
        return self.scale * candidate.image.flatten(1).mean(1)


class BatchMean(BatchTerm):
    def forward(self, candidate: Candidate) -> Tensor:
        return candidate.image.mean().expand(len(candidate.image))


class Shaped(Term):
    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, candidate: Candidate) -> Tensor:
        return torch.zeros(self.shape)


class Row(ParameterTerm):
    def forward(self) -> Tensor:
        return torch.zeros(2)


def candidate_of(levels: list[float]) -> Candidate:
    image = torch.tensor(levels)[:, None, None, None].expand(-1, 3, 4, 4).clone().requires_grad_()
    images, generator = len(levels), torch.Generator().manual_seed(0)
    return Candidate(
        image=image,
        source=image.detach(),
        target=torch.arange(images) % 3,
        logits=torch.randn(images, 3, generator=generator),
        features=torch.randn(images, 4, generator=generator),
        embedding=torch.randn(images, 5, generator=generator),
        anchor=torch.randn(images, 5, generator=generator),
    )


def entry(name: str, group: str, term: Any, factor: float = 1.0) -> Entry:
    return Entry(name=name, group=group, term=term, factor=factor)


def test_value_and_parts_by_hand() -> None:
    entries = [
        entry("one", "a", Brightness(1.0)),
        entry("two", "a", Brightness(10.0), 0.5),
        entry("three", "b", Brightness(-1.0)),
    ]
    scored = Objective(entries, Fixed({"b": 0.25, "a": 2.0}))(candidate_of([1.0, 2.0]), 0)
    assert scored.value.tolist() == [2 * (1 + 5) - 0.25, 2 * (2 + 10) - 0.5]
    assert {name: part.tolist() for name, part in scored.parts.items()} == {
        "one": [1.0, 2.0],
        "two": [10.0, 20.0],
        "three": [-1.0, -2.0],
    }


def test_baseline_is_the_sum_of_its_formulas() -> None:
    candidate = candidate_of([0.1, 0.5, 0.9])
    assert candidate.features is not None
    assert candidate.embedding is not None
    assert candidate.anchor is not None
    centres, rows, lora = torch.randn(3, 4), 2 * torch.eye(5), [torch.ones(1, 2)]
    objective = Objective(
        [
            entry("cls_topk", "cls", TopK()),
            entry("cls_feature", "cls", FeatureCentre(centres), 0.5),
            entry("id", "id", IdentityCosine()),
            entry("reg", "reg", Regulariser(lambda: rows, lora, lora_weight=0.1)),
        ],
        Fixed({"cls": 1.0, "id": 0.8, "reg": 0.2}),
    )
    expected = (
        topk_margin(candidate.logits, candidate.target)
        + 0.5 * feature_distance(candidate.features, centres[candidate.target])
        + 0.8 * identity_distance(candidate.embedding, candidate.anchor)
        + 0.2 * (1 + 0.1 * 2)
    )
    torch.testing.assert_close(objective(candidate, 0).value, expected)


def test_gradient_is_weight_times_factor() -> None:
    candidate = candidate_of([1.0, 2.0])
    objective = Objective([entry("one", "a", Brightness(3.0), 0.5)], Fixed({"a": 4.0}))
    objective(candidate, 0).value.sum().backward()
    torch.testing.assert_close(candidate.image.grad, torch.full((2, 3, 4, 4), 6.0 / 48))


def test_parts_are_detached() -> None:
    scored = Objective([entry("one", "a", Brightness())], Fixed({"a": 1.0}))(candidate_of([1.0]), 0)
    assert scored.value.requires_grad
    assert not scored.parts["one"].requires_grad


def test_terms_and_groups_keep_their_gradient_and_their_numbers() -> None:
    entries = [entry("one", "a", Brightness(1.0)), entry("two", "a", Brightness(10.0), 0.5)]
    scored = Objective(entries, Fixed({"a": 2.0}))(candidate_of([1.0, 2.0]), 0)
    assert {name: values.tolist() for name, values in scored.terms.items()} == {"one": [1.0, 2.0], "two": [10.0, 20.0]}
    assert scored.groups["a"].tolist() == [6.0, 12.0]
    assert all(values.requires_grad for values in (*scored.terms.values(), *scored.groups.values()))


def test_each_term_is_evaluated_once() -> None:
    terms = [Brightness(), Brightness(), Brightness()]
    entries = [entry(f"t{number}", "a" if number else "b", term) for number, term in enumerate(terms)]
    Objective(entries, Fixed({"a": 1.0, "b": 0.0}))(candidate_of([1.0]), 0)
    assert [len(term.calls) for term in terms] == [1, 1, 1]


def test_group_of_weight_zero_is_watched_without_gradient() -> None:
    used, watched = Brightness(), Brightness(math.nan)
    objective = Objective(
        [entry("used", "a", used), entry("watched", "b", watched)],
        Staged([StageWeights(0, {"a": 1.0}), StageWeights(5, {"a": 1.0, "b": 1.0})]),
    )
    scored = objective(candidate_of([2.0]), 4)
    assert (used.calls, watched.calls) == ([True], [False])
    assert scored.value.tolist() == [2.0]
    assert scored.parts["watched"].isnan().all()
    objective(candidate_of([2.0]), 5)
    assert (used.calls, watched.calls) == ([True, True], [False, True])


def test_gradient_stays_off_where_the_caller_turned_it_off() -> None:
    term = Brightness()
    with torch.no_grad():
        Objective([entry("one", "a", term)], Fixed({"a": 1.0}))(candidate_of([1.0]), 0)
    assert term.calls == [False]


def test_parameter_term_counts_once_per_image_and_its_mean_is_itself() -> None:
    rows = torch.tensor([[0.0, 3.0]], requires_grad=True)
    objective = Objective([entry("reg", "reg", Regulariser(lambda: rows, [], lora_weight=0))], Fixed({"reg": 0.5}))
    scored = objective(candidate_of([1.0, 2.0, 3.0]), 0)
    assert scored.parts["reg"].tolist() == [4.0, 4.0, 4.0]
    scored.value.mean().backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad, torch.tensor([[0.0, 2.0]]))


def test_batch_term_takes_its_place() -> None:
    scored = Objective([entry("div", "div", BatchMean())], Fixed({"div": 2.0}))(candidate_of([1.0, 3.0]), 0)
    assert scored.value.tolist() == [4.0, 4.0]


def test_state_is_named_by_term() -> None:
    entries = [entry("cls_topk", "cls", TopK()), entry("cls_feature", "cls", FeatureCentre(torch.ones(3, 4)))]
    objective = Objective(entries, Fixed({"cls": 1.0}))
    other = Objective(
        [entry("cls_feature", "cls", FeatureCentre(torch.zeros(3, 4))), entry("cls_topk", "cls", TopK())],
        Fixed({"cls": 1.0}),
    )
    assert list(objective.state_dict()) == ["terms.cls_feature.centres"]
    other.load_state_dict(objective.state_dict())
    torch.testing.assert_close(other(candidate_of([1.0]), 0).value, objective(candidate_of([1.0]), 0).value)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Shaped(), r"`one` should return values of shape \(2,\). Found \(\)."),
        (Shaped(2, 1), r"Found \(2, 1\)."),
        (Shaped(1), r"Found \(1,\)."),
        (Row(), r"`one` should return values of shape \(\). Found \(2,\)."),
    ],
)
def test_reduced_values_are_refused(term: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Objective([entry("one", "a", term)], Fixed({"a": 1.0}))(candidate_of([1.0, 2.0]), 0)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "`entries` should hold at least one term."),
        ([entry("one", "a", TopK()), entry("one", "a", TopK())], "`name` should be an identifier .* Found 'one'."),
        ([entry("a.b", "a", TopK())], "`name` should be an identifier that no other term has. Found 'a.b'."),
        ([entry("one", "a", TopK(), 0.0)], "`one.factor` should be a finite number above 0. Found 0.0. Leave the te"),
        ([entry("one", "a", TopK(), math.nan)], "Found nan."),
        ([entry("one", "b", TopK())], "`weights` should name exactly the groups that have terms: b.*unknown: a."),
        ([entry("one", "a", TopK()), entry("two", "b", TopK())], "Missing: b; unknown: none."),
    ],
)
def test_refused_before_any_work(entries: list[Entry], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        Objective(entries, Fixed({"a": 1.0}))
