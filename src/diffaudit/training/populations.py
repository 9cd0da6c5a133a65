"""Who is in the embedded benchmark: the public identities, the private ones, and the unseen ones for scores."""

from torch import Tensor

from diffaudit.data.faces import sample_identities, with_near_twins

PUBLIC, PRIVATE, UNSEEN, CROWD = 4000, 100, 200, 1000
TWIN_PAIRS = 10


def public_identities() -> Tensor:
    """``(4000, 23)``: all that an attacker has photographs of."""
    return sample_identities(PUBLIC, seed=101)


def private_identities() -> Tensor:
    """``(100, 23)``: the target's classes. The last ten are near-twins of the first ten."""
    return with_near_twins(sample_identities(PRIVATE, seed=202), TWIN_PAIRS, seed=203)


def unseen_identities() -> Tensor:
    """``(200, 23)``: neither public nor private; every reported score of an encoder or estimator is on these."""
    return sample_identities(UNSEEN, seed=303)


def unseen_crowd() -> Tensor:
    """``(1000, 23)``: unseen as well, and more of them, for scores that one answer a person decides."""
    return sample_identities(CROWD, seed=404)
