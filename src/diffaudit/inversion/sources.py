"""Which public pictures reconstructions start from."""

import torch
from torch import Tensor


def spread_rows(values: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """``(count,)`` rows of ``values (N, F)`` that are far from one another: farthest points, the first one at random.

    Each next row is the one whose nearest chosen row is farthest (Gonzalez, *Clustering to Minimize the Maximum
    Intercluster Distance*, 1985). Rows are different; ties go to the earlier row. ``count`` is at most ``N``.

    >>> line = torch.tensor([[0.0], [1.0], [5.0], [9.0]])
    >>> spread_rows(line, 3, torch.Generator().manual_seed(0)).sort().values
    tensor([0, 2, 3])
    """
    first = int(torch.randint(len(values), (), generator=generator))
    chosen = [first]
    nearest = (values - values[first]).square().sum(1)
    for _ in range(count - 1):
        nearest[chosen[-1]] = -1
        following = int(nearest.argmax())
        chosen.append(following)
        nearest = torch.minimum(nearest, (values - values[following]).square().sum(1))
    return torch.tensor(chosen)
