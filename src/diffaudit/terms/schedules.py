r"""How much the prior's draw counts at each noise level, as a function of progress.

Progress is :math:`s = 1 - t/(T-1)`, 0 at pure noise and 1 at the clean image, so a weight that grows with ``s`` grows
toward low noise, where details are made. The same tables circulate in :math:`t/T` with ``t < 0.2 T`` called high noise;
in the convention of DDPM and of every diffusers scheduler that is the *clean* end, and the weights come out reversed.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Schedule = Callable[[Tensor], Tensor]
"""Progress ``(B,)`` in [0, 1] to weights ``(B,)``, none below 0."""


def constant_weight(progress: Tensor) -> Tensor:
    """Return 1 at every progress: the baseline.

    Shapes ``(B,) -> (B,)``.

    >>> constant_weight(torch.tensor([0.0, 0.5, 1.0]))
    tensor([1., 1., 1.])
    """
    return torch.ones_like(progress)


def step_weight(progress: Tensor) -> Tensor:
    r"""Return 0.5 at high noise, 1 in the middle and 1.5 at low noise.

    .. math:: w(s) = 0.5 \;(s < 0.2), \quad 1 \;(0.2 \le s < 0.8), \quad 1.5 \;(s \ge 0.8)

    Shapes ``(B,) -> (B,)``; range {0.5, 1, 1.5}; its mean over a uniform ``s`` is 1.

    >>> step_weight(torch.tensor([0.0, 0.2, 0.5, 0.8, 1.0]))
    tensor([0.5000, 1.0000, 1.0000, 1.5000, 1.5000])
    """
    return 0.5 + 0.5 * (progress >= 0.2).to(progress) + 0.5 * (progress >= 0.8).to(progress)


def linear_weight(progress: Tensor) -> Tensor:
    r"""Return a weight that grows evenly.

    .. math:: w(s) = 0.5 + s

    Shapes ``(B,) -> (B,)``; range [0.5, 1.5]; its mean over a uniform ``s`` is 1.

    >>> linear_weight(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.5000, 1.0000, 1.5000])
    """
    return 0.5 + progress


def cosine_weight(progress: Tensor) -> Tensor:
    r"""Return a weight that grows fastest at middle noise.

    .. math:: w(s) = 0.5 + 0.5 \left(1 - \cos \pi s\right)

    Shapes ``(B,) -> (B,)``; range [0.5, 1.5], though it is often annotated with [0.5, 1]; its mean over a uniform ``s``
    is 1.

    >>> cosine_weight(torch.tensor([0.0, 0.5, 1.0]))
    tensor([0.5000, 1.0000, 1.5000])
    """
    return 0.5 + 0.5 * (1 - (math.pi * progress).cos())
