"""Margin terms: does the class sought lead its strongest rival by enough?"""

import math

from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_labels, require_matrix, require_weight
from diffaudit.terms.base import Term
from diffaudit.terms.classifier import topk_margin

ROUNDING = 1e-3


def logit_hinge(logits: Tensor, target: Tensor, *, margin: float = 1.0) -> Tensor:
    r"""Return by how much the target's logit misses a lead of ``margin`` over the largest other one, per image.

    .. math:: \max\left(0,\; m + \max_{j \ne y_b} l_j - l_{y_b}\right)

    Shapes ``(B, C), (B,) -> (B,)``; range ``[0, inf)``; ``margin`` is in the units of the logits. Once the lead is
    reached, neither value nor gradient is left.

    Paper: Crammer, Singer, "On the Algorithmic Implementation of Multiclass Kernel-based Vector Machines" (2001).

    Raises:
        InvalidSetting: for a margin that is negative or not finite, and for what :func:`.topk_margin` refuses.

    >>> import torch
    >>> logit_hinge(torch.tensor([[2.0, 1.5, 0.0], [5.0, 0.0, 1.0]]), torch.tensor([0, 0]))
    tensor([0.5000, 0.0000])
    """
    require_weight("margin", margin)
    return F.relu(margin + topk_margin(logits, target))


class LogitMargin(Term):
    """:func:`logit_hinge` of ``candidate.logits`` for ``candidate.target``.

    Raises:
        InvalidSetting: for a margin that is negative or not finite.
    """

    lower_bound = 0.0
    hinge = True

    def __init__(self, *, margin: float = 1.0) -> None:
        super().__init__()
        require_weight("margin", margin)
        self.margin = margin

    def forward(self, candidate: Candidate) -> Tensor:
        return logit_hinge(candidate.logits, candidate.target, margin=self.margin)

    def extra_repr(self) -> str:
        """Return the margin for the printed objective."""
        return f"margin={self.margin}"


def angular_hinge(cosines: Tensor, target: Tensor, *, margin: float = 0.5) -> Tensor:
    r"""Return by how much the nearest rival's cosine exceeds the target's with an angle of ``margin`` added, per image.

    .. math:: \max\left(0,\; \max_{j \ne y_b} \cos \theta_j - g(\theta_{y_b})\right), \qquad
        g(\theta) = \begin{cases} \cos(\theta + m) & \theta \le \pi - m \\ \cos\theta + \cos m - 1 & \text{else}
        \end{cases}

    Shapes ``(B, C), (B,) -> (B,)``; range ``[0, 3 - cos(margin)]``; ``margin`` is in radians. :math:`\cos(\theta + m)`
    alone, as it circulates, rises again beyond :math:`\pi - m`, and there pushes the image *away* from its class; ``g``
    goes on downward, without a jump.

    Paper: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (2018,
    arXiv:1801.07698), for the additive angle.

    Raises:
        InvalidSetting: for a margin outside [0, pi], for cosines outside [-1, 1] beyond rounding, and for what
            :func:`.topk_margin` refuses.

    >>> import math, torch
    >>> cosines = torch.tensor([[math.cos(0.5), math.cos(1.2)]])
    >>> angular_hinge(cosines, torch.tensor([0]), margin=0.5), angular_hinge(cosines, torch.tensor([0]), margin=0.7)
    (tensor([0.]), tensor([0.]))
    >>> angular_hinge(cosines, torch.tensor([1]), margin=0.5) - (math.cos(0.5) - math.cos(1.7))
    tensor([0.])
    """
    require_angle("margin", margin)
    require_matrix("cosines", cosines)
    require_labels(target, len(cosines))
    largest = float(cosines.detach().abs().amax())
    if largest > 1 + ROUNDING:
        raise InvalidSetting(
            "cosines",
            "lie in [-1, 1]",
            largest,
            "Give the factor of the model's last, normalised layer as `scale`; for other models take the margin on "
            "logits.",
        )
    labels = target[:, None].long()
    own = cosines.gather(1, labels)
    # Without the floor the slope at a cosine of 1 is infinite, and a satisfied hinge makes 0 times it, no number.
    sine = (1 - own.square()).clamp(min=1e-12).sqrt()
    shifted = own * math.cos(margin) - sine * math.sin(margin)
    beyond = own < -math.cos(margin)
    lowered = shifted.where(~beyond, own + math.cos(margin) - 1)
    return F.relu(topk_margin(cosines.scatter(1, labels, lowered), target))


class AngularMargin(Term):
    """:func:`angular_hinge` of ``candidate.logits / scale``, for a target classifier that ends in a normalised layer.

    Such a layer's logits are cosines between features and class vectors times ``scale`` (ArcFace's *s*, often 64 or
    30).

    Raises:
        InvalidSetting: for a margin outside [0, pi], for a scale that is not above 0; in ``forward``, for logits that
            are no cosines times ``scale``.
    """

    lower_bound = 0.0
    hinge = True

    def __init__(self, *, scale: float, margin: float = 0.5) -> None:
        super().__init__()
        if not (math.isfinite(scale) and scale > 0):
            raise InvalidSetting("scale", "be a finite number above 0", scale)
        self.scale = scale
        require_angle("margin", margin)
        self.margin = margin

    def forward(self, candidate: Candidate) -> Tensor:
        return angular_hinge(candidate.logits / self.scale, candidate.target, margin=self.margin)

    def extra_repr(self) -> str:
        """Return scale and margin for the printed objective."""
        return f"scale={self.scale}, margin={self.margin}"


def require_angle(name: str, value: float) -> None:
    """Refuse what is no angle between 0 and a half turn; degrees are noticed."""
    if not 0 <= value <= math.pi:
        raise InvalidSetting(name, "be an angle in radians, in [0, pi]", value)
