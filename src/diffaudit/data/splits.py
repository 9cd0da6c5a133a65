"""Who is private, who is public, and which photographs of a person train: splits that a seed and the names decide.

Draws order names by a hash of the seed and the name, so that a person's lot does not depend on who else is there.
"""

import hashlib
from collections.abc import Sequence

from diffaudit.data.folders import ImageFolder
from diffaudit.errors import InvalidSetting, ThreatModelViolation

NAMED_IN_MESSAGE = 5


def split_identities(names: Sequence[str], private: Sequence[str] | int, *, seed: int) -> tuple[list[str], list[str]]:
    """Return the private and the public identities, each in the order of ``names``.

    Args:
        names: all identities.
        private: the private ones, or how many to draw. A larger number keeps those that a smaller one draws.
        seed: of the draw.

    Raises:
        InvalidSetting: for a private identity that is not among ``names`` and for a side that would be empty.

    >>> split_identities(["ada", "ben", "cleo"], ["ben"], seed=0)
    (['ben'], ['ada', 'cleo'])
    >>> split_identities(["ada", "ben", "cleo"], 1, seed=0)
    (['ada'], ['ben', 'cleo'])
    """
    if len(set(names)) != len(names):
        raise InvalidSetting("names", "be distinct", sorted({name for name in names if list(names).count(name) > 1}))
    if isinstance(private, int):
        if not 1 <= private < len(names):
            rule = f"be between 1 and {len(names) - 1}, which leaves a public identity"
            raise InvalidSetting("private", rule, private)
        chosen = set(sorted(names, key=lambda name: _lot(seed, name))[:private])
    else:
        chosen = set(private)
        unknown = sorted(chosen - set(names))
        if unknown:
            raise InvalidSetting("private", "name identities of the folder", unknown)
        if not 1 <= len(chosen) < len(names):
            raise InvalidSetting("private", "leave an identity on either side", list(private))
    return [name for name in names if name in chosen], [name for name in names if name not in chosen]


def check_disjoint(private: ImageFolder, public: ImageFolder) -> None:
    """Return if nobody and no file is on both sides: by name, whatever its case, and by the hash of the bytes.

    Raises:
        ThreatModelViolation: with the identities shared, and with the pairs of files whose bytes are the same.

    >>> from pathlib import Path
    >>> import torch
    >>> ben = ImageFolder((Path("ben/1.png"),), torch.tensor([0]), ("ben",))
    >>> check_disjoint(ben, ben)
    Traceback (most recent call last):
        ...
    diffaudit.errors.ThreatModelViolation: `public` should show nobody of `private`. Found 1 shared identity: ben. ...
    """
    hidden = {name.casefold() for name in private.names}
    shared = [name for name in public.names if name.casefold() in hidden]
    if shared:
        noun = "identity" if len(shared) == 1 else "identities"
        raise ThreatModelViolation(
            f"`public` should show nobody of `private`. Found {len(shared)} shared {noun}: {_listed(shared)}. "
            "Remove them from one side, or rename those who only happen to share a name."
        )
    owners = dict(zip(private.digests(), private.paths, strict=True))
    copies = [
        f"{path} = {owners[digest]}"
        for path, digest in zip(public.paths, public.digests(), strict=True)
        if digest in owners
    ]
    if copies:
        raise ThreatModelViolation(
            f"`public` should hold no file of `private`. Found {len(copies)} with the same bytes: {_listed(copies)}. "
            "Remove them from the public side."
        )


def halves(folder: ImageFolder, *, seed: int) -> tuple[ImageFolder, ImageFolder]:
    """Return the training and the reference half of every class's images; an odd one trains.

    Raises:
        InvalidSetting: for a class with fewer than two images.

    >>> from pathlib import Path
    >>> import torch
    >>> ben = ImageFolder(tuple(Path(f"ben/{n}.png") for n in range(5)), torch.zeros(5, dtype=torch.long), ("ben",))
    >>> [len(half) for half in halves(ben, seed=0)]
    [3, 2]
    """
    training: list[int] = []
    reference: list[int] = []
    labels = folder.labels.tolist()
    for label, name in enumerate(folder.names):
        rows = [row for row, own in enumerate(labels) if own == label]
        if len(rows) < 2:
            rule = "hold at least two images of each class, one for each half"
            raise InvalidSetting("folder", rule, f"{len(rows)} of {name}")
        rows.sort(key=lambda row: _lot(seed, f"{name}/{folder.paths[row].name}"))
        middle = (len(rows) + 1) // 2
        training += rows[:middle]
        reference += rows[middle:]
    return folder[sorted(training)], folder[sorted(reference)]


def _lot(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()


def _listed(items: Sequence[str]) -> str:
    more = len(items) - NAMED_IN_MESSAGE
    return ", ".join(items[:NAMED_IN_MESSAGE]) + (f" and {more} more" if more > 0 else "")
