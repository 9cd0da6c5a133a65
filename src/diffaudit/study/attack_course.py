"""How the attack of a run went, step by step: what each batch saw, kept with it, and the curve of all of them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffaudit.perturbation.attack import Iteration
from diffaudit.records import CoursePoint

PART = "part "
"""Before the name of a term, among a batch's tensors."""


def seen_course(seen: Sequence[Iteration], last: Tensor, iterations: int) -> dict[str, Tensor]:
    """What a batch saw, pictures first, so that batches can be joined.

    ``margins (B, iterations + 1, M)``, at the place of a step those before it; from where the batch ended on they are
    ``last (M, B)``. ``moving (B, iterations + 1)`` and every term ``(B, iterations + 1)``, NaN where nothing moved.
    """
    rest = iterations + 1 - len(seen)
    margins = torch.stack([one.margins for one in seen] + [last] * rest)
    still = torch.zeros_like(last[0], dtype=torch.bool)
    moving = torch.stack([one.moving for one in seen] + [still] * rest)
    found = {"margins": margins.permute(2, 0, 1), "moving": moving.T}
    for name in seen[0].parts if seen else ():
        values = torch.stack([one.parts[name] for one in seen] + [torch.zeros_like(last[0])] * rest)
        found[PART + name] = values.where(moving, torch.nan).T
    return found


def joined(batches: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """What several batches keep, picture after picture; a batch that ended before its first step has NaN for terms."""
    names = dict.fromkeys(name for batch in batches for name in batch)
    return {
        name: torch.cat([batch.get(name, torch.full(batch["moving"].shape, torch.nan)) for batch in batches])
        for name in names
    }


def course(seen: Mapping[str, Tensor], right: Mapping[str, Sequence[bool]]) -> list[CoursePoint]:
    """The curve over all pictures of a run; ``right`` says by surrogate which of the clean ones it had right.

    Surrogates are in the order in which the attack asked them. A term's value that is not finite is passed over.
    """
    fooled, moving = seen["margins"] > 0, seen["moving"]
    terms = {name.removeprefix(PART): values for name, values in seen.items() if name.startswith(PART)}
    known = {name: torch.tensor(list(hits)) for name, hits in right.items()}
    points = []
    for step in range(moving.shape[1]):
        values = {name: each[:, step][each[:, step].isfinite()] for name, each in terms.items()}
        points.append(
            CoursePoint(
                step=step,
                moving=float(moving[:, step].float().mean()),
                fooled={
                    name: float(fooled[hits, step, place].float().mean()) if bool(hits.any()) else None
                    for place, (name, hits) in enumerate(known.items())
                },
                parts={name: float(each.mean()) for name, each in values.items() if len(each)},
            )
        )
    return points
