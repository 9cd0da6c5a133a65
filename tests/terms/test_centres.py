import pytest
import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms import FeatureCentre, LearnedCentre, centre_travel, feature_distance, row_centres


def candidate_with(logits: Tensor, target: Tensor, features: Tensor | None = None) -> Candidate:
    image = torch.zeros(len(logits), 3, 4, 4)
    return Candidate(image=image, source=image, target=target, logits=logits, features=features)


def test_distance_by_hand() -> None:
    features = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 2.0]])
    centres = torch.tensor([[1.0, 0.0, 3.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    assert feature_distance(features, centres).tolist() == [5.0, 0.0]


def test_centre_is_the_row_of_the_target() -> None:
    centres = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]])
    candidate = candidate_with(torch.zeros(2, 3), torch.tensor([2, 0]), torch.ones(2, 2))
    assert FeatureCentre(centres)(candidate).tolist() == [4.0, 1.0]
    assert torch.equal(FeatureCentre(centres)(candidate), feature_distance(torch.ones(2, 2), centres[[2, 0]]))


def test_rows_as_centres_point_as_they_did_and_are_as_long_as_the_means() -> None:
    rows, means = torch.tensor([[0.06, 0.08], [-0.5, 0.0]]), torch.tensor([[0.0, 4.0], [6.0, 0.0]])
    torch.testing.assert_close(row_centres(rows, means), torch.tensor([[3.0, 4.0], [-5.0, 0.0]]))
    with pytest.raises(InvalidSetting, match="dimension of the features, 2"):
        row_centres(torch.ones(2, 3), means)


def test_centres_are_state_and_never_learn() -> None:
    given = torch.zeros(3, 2, requires_grad=True)
    term = FeatureCentre(given)
    assert list(term.state_dict()) == ["centres"]
    assert not list(term.parameters())
    features = torch.ones(1, 2, requires_grad=True)
    term(candidate_with(torch.zeros(1, 3), torch.tensor([1]), features)).sum().backward()
    assert given.grad is None
    assert features.grad is not None


def test_centres_are_a_copy() -> None:
    given = torch.zeros(3, 2)
    term = FeatureCentre(given)
    given.fill_(9)
    assert term.centres.max() == 0


def test_learned_centre_begins_at_the_start_and_has_not_travelled() -> None:
    start = torch.tensor([[0.0, 0.0], [1.0, 1.0], [3.0, 3.0]], requires_grad=True)
    term = LearnedCentre(start)
    candidate = candidate_with(torch.zeros(2, 3), torch.tensor([2, 0]), torch.ones(2, 2))
    assert term(candidate).tolist() == [4.0, 1.0]
    assert torch.equal(term(candidate), FeatureCentre(start)(candidate))
    travel = term.travel(torch.tensor([2, 0]))
    assert travel is not None
    assert travel.tolist() == [0.0, 0.0]


def test_only_the_centres_sought_learn() -> None:
    term = LearnedCentre(torch.zeros(3, 2))
    features = torch.tensor([[1.0, 2.0]], requires_grad=True)
    term(candidate_with(torch.zeros(1, 3), torch.tensor([1]), features)).sum().backward()
    assert [name for name, _ in term.named_parameters()] == ["centres"]
    assert term.centres.grad is not None
    assert term.centres.grad.tolist() == [[0.0, 0.0], [-1.0, -2.0], [0.0, 0.0]]
    assert features.grad is not None
    assert features.grad.tolist() == [[1.0, 2.0]]


def test_travel_by_hand_survives_a_checkpoint() -> None:
    """Of classes 0 and 2, a spread of 2 apart from their mean: rows of classes not sought, of zeros, say nothing."""
    start = torch.tensor([[10.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [10.0, -2.0, 0.0, 0.0]])
    term, sought = LearnedCentre(start), torch.tensor([0, 2])
    with torch.no_grad():
        term.centres[2] += torch.tensor([3.0, 0.0, 4.0, 0.0])
        term.centres[1] += 100
    other = LearnedCentre(torch.ones(3, 4))
    other.load_state_dict(term.state_dict())
    for one in (term, other):
        travel = one.travel(sought)
        assert travel is not None
        assert travel.tolist() == [0.0, 2.5]


def test_travel_is_in_units_of_the_spread() -> None:
    start = torch.tensor([[3.0, 0.0], [-3.0, 0.0]])
    torch.testing.assert_close(centre_travel(start + torch.tensor([0.0, 6.0]), start), torch.tensor([2.0, 2.0]))


def test_travel_of_centres_without_a_spread_is_none() -> None:
    """A single class that is sought, or classes with the same best pictures: no reason to break a training off."""
    assert centre_travel(torch.ones(1, 3), torch.zeros(1, 3)) is None
    assert centre_travel(torch.zeros(2, 3), torch.ones(2, 3)) is None


def test_travel_needs_one_shape() -> None:
    with pytest.raises(InvalidSetting, match=r"`centres` should have the shape of `start`, \(2, 3\). Found \(3,\)."):
        centre_travel(torch.ones(3), torch.ones(2, 3))


def steps_of_descent(centre: Tensor, rate: float, features: Tensor, steps: int = 100) -> LearnedCentre:
    """Gradient descent on the centre, with features that do not move."""
    term = LearnedCentre(centre)
    optimiser = torch.optim.SGD(term.parameters(), lr=rate)
    candidate = candidate_with(torch.zeros(1, 2), torch.tensor([0]), features)
    for _ in range(steps):
        optimiser.zero_grad()
        term(candidate).sum().backward()
        optimiser.step()
    return term


def test_a_centre_that_begins_anywhere_at_the_full_rate_walks_to_the_features_and_the_term_dies() -> None:
    # Each step leaves 1 - 2 rate / P of the way from the centre to the features.
    features, pseudo = torch.tensor([[3.0, 1.0]]), torch.tensor([[0.0, 0.0], [0.0, 0.0]])
    candidate = candidate_with(torch.zeros(1, 2), torch.tensor([0]), features)
    anywhere = torch.tensor([[-9.0, 7.0], [0.0, 0.0]])
    fault = steps_of_descent(anywhere, 0.05, features)
    assert fault(candidate).item() == pytest.approx((144 + 36) / 2 * 0.95**200, rel=1e-3)
    assert fault(candidate).item() < 0.01  # the features have not moved, and nothing pulls them any more
    ours = steps_of_descent(pseudo, 0.005, features)
    assert ours(candidate).item() == pytest.approx(5 * 0.995**200, rel=1e-3)
    assert ours(candidate).item() > 1.5
    way = (ours.centres[0] - ours.start[0]).norm().item()
    assert way == pytest.approx(10**0.5 * (1 - 0.995**100), rel=1e-3)


@pytest.mark.parametrize("term", [FeatureCentre, LearnedCentre])
@pytest.mark.parametrize(
    ("centres", "features", "message"),
    [
        (torch.zeros(3, 2), None, "`features` should be filled .* Found None. The target classifier shows no penult"),
        (torch.zeros(3, 2), torch.zeros(1, 4), r"`features` should have .* Found \(1, 4\)."),
        (torch.zeros(2, 2), torch.zeros(1, 2), "`centres` should have one row per class, 3. Found 2."),
        (torch.zeros(2), torch.zeros(1, 2), "`(centres|start)` should be a floating matrix"),
    ],
)
def test_centre_refusals(
    term: type[FeatureCentre] | type[LearnedCentre], centres: Tensor, features: Tensor | None, message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        term(centres)(candidate_with(torch.zeros(1, 3), torch.tensor([0]), features))
