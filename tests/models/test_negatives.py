import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.errors import InvalidSetting
from diffaudit.models.negatives import EMPTY, NegativeBank
from diffaudit.terms import identity_margin


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def scores_for(labels: Tensor, classes: int = 10) -> Tensor:
    """Logits whose largest is that of the label."""
    return F.one_hot(labels, classes).float() - 3.0


def numbered(count: int, dimension: int = 4) -> Tensor:
    """Different unit vectors, in order on a circle."""
    angle = (torch.arange(count) + 1) / (2 * count)
    rows = torch.zeros(count, dimension)
    rows[:, 0], rows[:, -1] = angle.cos(), angle.sin()
    return rows


def filled(classes: int = 5, public: int = 40, **sizes: int) -> NegativeBank:
    bank = NegativeBank(torch.arange(classes), 6, **sizes)
    bank.refresh(torch.randn(classes, 6, generator=seeded(1)))
    labels = torch.arange(public) % classes
    bank.remember(torch.randn(public, 6, generator=seeded(2)), scores_for(labels, classes))
    return bank


def labels_of(bank: NegativeBank, vectors: Tensor) -> Tensor:
    """The stored label of each vector drawn."""
    return bank.labels[torch.cdist(vectors.flatten(0, 1), bank.vectors).argmin(1)].view(vectors.shape[:2])


def test_what_is_stored_is_detached_and_of_length_one() -> None:
    bank = NegativeBank(torch.tensor([4, 7]), 3, capacity=4)
    label_embedding = torch.tensor([[3.0, 0.0, 4.0], [0.0, 2.0, 0.0]], requires_grad=True)
    bank.refresh(label_embedding)
    bank.remember(torch.tensor([[0.0, 0.0, 9.0]]), torch.tensor([[0.1, 0.9, 0.0]]))
    torch.testing.assert_close(bank.vectors[:2], torch.tensor([[0.6, 0.0, 0.8], [0.0, 1.0, 0.0]]))
    assert bank.vectors[2].tolist() == [0.0, 0.0, 1.0]
    assert bank.labels.tolist() == [4, 7, 1, EMPTY, EMPTY, EMPTY]
    assert not bank.vectors.requires_grad
    assert not list(bank.parameters())


def test_labels_of_public_pictures_are_the_targets_guess() -> None:
    bank = NegativeBank(torch.tensor([0]), 4, capacity=3)
    bank.remember(
        torch.randn(3, 4), torch.tensor([[0.0, 5.0, 1.0], [-1.0, -2.0, -3.0], [0.0, 0.0, 0.1]]).log_softmax(1)
    )
    assert bank.labels[1:].tolist() == [1, 0, 2]


def test_a_bank_of_the_training_set_would_carry_it_into_the_checkpoint() -> None:
    private = F.normalize(torch.randn(6, 4, generator=seeded(5)), dim=1)
    fault = NegativeBank(torch.arange(3), 4, capacity=8)
    fault.remember(private, scores_for(torch.arange(6) % 3, 3))
    nearest = (fault.state_dict()["vectors"] @ private.T).amax(0)
    torch.testing.assert_close(nearest, torch.ones(6))  # whoever reads the checkpoint has the private embeddings
    ours = NegativeBank(torch.arange(3), 4, capacity=8)  # begins empty, and is given public pictures alone
    assert ours.vectors.abs().max() == 0
    assert not ours.draw(torch.arange(3), seeded()).present.any()


def test_never_hands_out_the_images_own_class() -> None:
    bank, target = filled(per_image=12), torch.arange(5).repeat(4)
    drawn = bank.draw(target, seeded())
    assert drawn.vectors.shape == (20, 12, 6)
    assert drawn.present.all()
    assert (labels_of(bank, drawn.vectors) != target[:, None]).all()


def test_own_class_among_the_negatives_would_keep_the_loss_at_the_margin() -> None:
    bank = filled()
    target = torch.arange(5)
    anchor = bank.vectors[:5]  # the image shows exactly what is sought
    fault = bank.vectors[None].expand(5, -1, -1)
    assert (identity_margin(anchor, anchor, fault[:, :5]) >= 0.4 - 1e-6).all()
    drawn = bank.draw(target, seeded())
    own = torch.einsum("bd,bnd->bn", anchor, drawn.vectors)[drawn.present].max()
    assert own < 1 - 1e-3


def test_negatives_are_each_images_own_and_without_repeats() -> None:
    drawn = filled(per_image=8).draw(torch.zeros(3, dtype=torch.long), seeded())
    assert not torch.equal(drawn.vectors[0], drawn.vectors[1])
    for vectors in drawn.vectors:
        assert len(vectors.unique(dim=0)) == 8


def test_two_classes_have_fewer_negatives_than_asked() -> None:
    bank = NegativeBank(torch.tensor([0, 1]), 2, capacity=4)
    bank.refresh(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    drawn = bank.draw(torch.tensor([0, 1, 0]), seeded())
    assert drawn.present.sum(1).tolist() == [1, 1, 1]
    assert drawn.vectors[drawn.present].tolist() == [[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]
    embedding = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    anchor = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    torch.testing.assert_close(identity_margin(embedding, anchor, *drawn), torch.tensor([0.0, 0.0, 1.4]))


def test_an_empty_bank_has_no_negatives() -> None:
    drawn = NegativeBank(torch.tensor([0, 1]), 2, capacity=3).draw(torch.tensor([0, 1]), seeded())
    assert not drawn.present.any()


@pytest.mark.parametrize("per_image", [1, 4])
def test_snapshots_alone_or_one_negative_will_do(per_image: int) -> None:
    bank = NegativeBank(torch.tensor([2, 5, 9]), 3, capacity=0, per_image=per_image)
    bank.refresh(torch.eye(3))
    drawn = bank.draw(torch.tensor([2, 9, 0]), seeded())
    assert drawn.present.sum(1).tolist() == [min(per_image, held) for held in (2, 2, 3)]
    assert drawn.vectors[0][drawn.present[0]][:, 0].tolist() == [0.0] * min(per_image, 2)


def test_half_of_either_part_where_there_is_enough() -> None:
    bank = filled(classes=30, public=500, per_image=16, capacity=512)
    drawn = bank.draw(torch.arange(30), seeded())
    of_snapshots = (torch.cdist(drawn.vectors.flatten(0, 1), bank.vectors[:30]).amin(1) < 1e-2).view(30, 16)
    assert (of_snapshots.sum(1) == 8).all()


def test_one_part_makes_up_for_the_other() -> None:
    few = filled(classes=3, public=30, per_image=20).draw(torch.arange(3), seeded())
    assert few.present.all()  # 2 snapshots and 18 of the 20 public pictures of other classes
    snapshots_alone = filled(classes=30, public=2, per_image=20).draw(torch.tensor([5]), seeded())
    assert snapshots_alone.present.all()
    too_few = filled(classes=3, public=6, per_image=20).draw(torch.arange(3), seeded())
    assert too_few.present.sum(1).tolist() == [6, 6, 6]  # 2 snapshots and 4 public pictures


def test_every_entry_is_as_likely() -> None:
    bank = NegativeBank(torch.tensor([0]), 4, capacity=10, per_image=3)
    bank.remember(numbered(10), scores_for(torch.full((10,), 1), 2))
    drawn = bank.draw(torch.zeros(20_000, dtype=torch.long), seeded())
    number = torch.cdist(drawn.vectors.flatten(0, 1), bank.vectors).argmin(1)
    share = number.bincount(minlength=11)[1:] / 20_000  # of 10 entries 3: each with probability 0.3
    torch.testing.assert_close(share, torch.full((10,), 0.3), rtol=0, atol=5 * (0.3 * 0.7 / 20_000) ** 0.5)


def test_draws_follow_from_the_generator_alone() -> None:
    bank, target = filled(), torch.arange(5)
    before = torch.get_rng_state()
    first, again, other = (bank.draw(target, seeded(seed)).vectors for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_how_much_is_drawn_does_not_depend_on_what_the_bank_holds() -> None:
    states = []
    for bank in (filled(), NegativeBank(torch.arange(5), 6)):
        generator = seeded()
        bank.draw(torch.arange(5), generator)
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_the_ring_keeps_the_newest() -> None:
    bank = NegativeBank(torch.tensor([0]), 4, capacity=5)
    vectors, labels = numbered(12), torch.arange(12) % 10
    bank.remember(vectors[:3], scores_for(labels[:3]))
    bank.remember(vectors[3:7], scores_for(labels[3:7]))
    torch.testing.assert_close(bank.vectors[1:], vectors[[5, 6, 2, 3, 4]])
    assert bank.labels[1:].tolist() == [5, 6, 2, 3, 4]
    bank.remember(vectors, scores_for(labels))  # 12 at once: the last five stay
    assert sorted(bank.labels[1:].tolist()) == [0, 1, 7, 8, 9]
    assert int(bank.remembered) == 19


def test_snapshots_replace_one_another_and_leave_the_ring() -> None:
    bank = filled()
    ring = bank.vectors[5:].clone()
    bank.refresh(torch.eye(6)[:5])
    assert torch.equal(bank.vectors[:5], torch.eye(6)[:5])
    assert torch.equal(bank.vectors[5:], ring)


def test_snapshots_are_due_every_interval_and_where_there_are_none() -> None:
    bank = NegativeBank(torch.arange(5), 6, interval=50)
    assert bank.is_due(30)
    bank.refresh(torch.randn(5, 6))
    assert [step for step in range(160) if bank.is_due(step)] == [0, 50, 100, 150]
    assert not NegativeBank(torch.arange(5), 6, interval=None).is_due(0)


def test_a_stopped_run_goes_on_with_the_same_negatives() -> None:
    bank, other = filled(), NegativeBank(torch.arange(5), 6)
    other.load_state_dict(bank.state_dict())
    more = torch.randn(3, 6)
    for either in (bank, other):
        either.remember(more, scores_for(torch.tensor([1, 2, 3]), 5))
    assert torch.equal(bank.vectors, other.vectors)
    target = torch.arange(5)
    assert torch.equal(bank.draw(target, seeded()).vectors, other.draw(target, seeded()).vectors)
    assert not other.is_due(49)


def test_moves_to_another_precision() -> None:
    bank = filled().double()
    bank.refresh(torch.randn(5, 6))
    drawn = bank.draw(torch.arange(5), seeded())
    assert drawn.vectors.dtype == torch.float64
    assert bank.labels.dtype == bank.remembered.dtype == torch.long


@pytest.mark.parametrize(
    ("classes", "sizes", "message"),
    [
        (torch.tensor([], dtype=torch.long), {}, "`classes` should hold integer class indices from 0, at least one."),
        (torch.tensor([-1, 2]), {}, "`classes` should hold integer class indices"),
        (torch.tensor([0.0]), {}, "`classes` should hold integer class indices"),
        (torch.tensor([1, 1]), {}, r"`classes` should name each class once. Found \[1, 1\]."),
        (torch.tensor([0]), {"capacity": -1}, "`capacity` should be an integer of at least 0. Found -1."),
        (torch.tensor([0]), {"per_image": 0}, "`per_image` should be an integer of at least 1. Found 0."),
        (torch.tensor([0]), {"interval": 0}, "`interval` should be a positive number of steps, or None. Found 0."),
    ],
)
def test_refusals_at_the_door(classes: Tensor, sizes: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        NegativeBank(classes, 4, **sizes)


def test_shapes_are_refused() -> None:
    bank = NegativeBank(torch.arange(3), 4, capacity=8)
    with pytest.raises(InvalidSetting, match=r"`embeddings` should have shape \(3, 4\), a row per class. Found \(2, 4"):
        bank.refresh(torch.zeros(2, 4))
    with pytest.raises(InvalidSetting, match=r"`embeddings` should have shape \(N, 4\). Found \(2, 5\)."):
        bank.remember(torch.zeros(2, 5), torch.zeros(2, 3))
    with pytest.raises(InvalidSetting, match=r"`scores` should have shape \(2, C\). Found \(3, 3\)."):
        bank.remember(torch.zeros(2, 4), torch.zeros(3, 3))
    with pytest.raises(InvalidSetting, match="`capacity` should be above 0 for a bank that remembers public pictures"):
        NegativeBank(torch.arange(3), 4, capacity=0).remember(torch.zeros(2, 4), torch.zeros(2, 3))
