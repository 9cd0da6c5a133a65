from torch import Tensor

from diffaudit.data.faces import IDENTITY_FACTORS
from diffaudit.training.populations import (
    TWIN_PAIRS,
    private_identities,
    public_identities,
    unseen_crowd,
    unseen_identities,
)


def people(identities: Tensor) -> set[tuple[float, ...]]:
    return {tuple(row) for row in identities.tolist()}


def test_nobody_is_in_two_populations() -> None:
    groups = [people(group()) for group in (public_identities, private_identities, unseen_identities, unseen_crowd)]
    assert [len(group) for group in groups] == [4000, 100, 200, 1000]
    assert len(set().union(*groups)) == 4000 + 100 + 200 + 1000


def test_they_are_the_same_each_time() -> None:
    assert people(private_identities()) == people(private_identities())


def test_the_last_private_people_are_near_twins_of_the_first() -> None:
    identities = private_identities()
    changed = identities[-TWIN_PAIRS:] != identities[:TWIN_PAIRS]
    assert changed.sum(1).tolist() == [3] * TWIN_PAIRS
    plain = [index for index, name in enumerate(IDENTITY_FACTORS) if name.startswith(("hair", "beard", "glasses"))]
    assert not changed[:, plain].any()
    travel = (identities[-TWIN_PAIRS:] - identities[:TWIN_PAIRS]).abs()[changed]
    assert travel.min() >= 0.35 - 1e-6
