"""Classifier terms on the logits: does the target classifier see the class sought?"""

import math

from torch import Tensor
from torch.nn import functional as F

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_labels, require_matrix
from diffaudit.terms.base import Term


def topk_margin(logits: Tensor, target: Tensor, *, k: int = 1) -> Tensor:
    r"""Return the mean of the ``k`` largest other logits minus the target's, per image.

    .. math:: -l_{y_b} + \frac{1}{k} \sum_{j \in \mathrm{top}_k(j \ne y_b)} l_j

    Shapes ``(B, C), (B,) -> (B,)``; range ``(-inf, inf)``, negative where the target leads its rivals' mean.
    ``k = 1`` is the hard maximum, the baseline; with a larger ``k`` each of the ``k`` rivals gets a gradient.
    The label is taken out by ``-inf``: multiplied by 0 it would stay in as a rival of logit 0, which leads wherever
    the true rivals are negative.

    Paper: Carlini, Wagner, "Towards Evaluating the Robustness of Neural Networks" (2016, arXiv:1608.04644), for
    ``k = 1``, their f6 without the hinge.

    Raises:
        InvalidSetting: for ``k`` outside [1, C - 1], for logits that are no matrix, for other than one label per row.

    >>> import torch
    >>> logits = torch.tensor([[-1.0, -2.0, -4.0]])
    >>> topk_margin(logits, torch.tensor([0])), topk_margin(logits, torch.tensor([0]), k=2)
    (tensor([-1.]), tensor([-2.]))
    """
    require_matrix("logits", logits)
    rows, classes = logits.shape
    require_labels(target, rows)
    if not 1 <= k <= classes - 1:
        raise InvalidSetting("k", f"be an integer in [1, {classes - 1}], for {classes} classes have no more rivals", k)
    labels = target[:, None].long()
    rivals = logits.scatter(1, labels, -math.inf)
    return rivals.topk(k, dim=1).values.mean(1) - logits.gather(1, labels)[:, 0]


def adaptive_k(classes: int, *, k_min: int = 2, k_max: int = 5) -> int:
    r"""Return the number of rivals that suits the number of classes.

    .. math:: \min\left(C - 1,\; \mathrm{clamp}(\lfloor C / 20 \rfloor,\, k_{\min},\, k_{\max})\right)

    Range ``[1, k_max]``. Texts that say "10 classes: k = 1" contradict the formula, which says 2 there: they mean
    ``k_min = 1``.

    Raises:
        InvalidSetting: for fewer than 2 classes, which have no rival, and for other than ``1 <= k_min <= k_max``.

    >>> [adaptive_k(classes) for classes in (2, 10, 60, 1000)], adaptive_k(10, k_min=1)
    ([1, 2, 3, 5], 1)
    """
    if classes < 2:
        raise InvalidSetting("classes", "be at least 2, for one class has no rival", classes)
    if k_min < 1:
        raise InvalidSetting("k_min", "be a positive integer", k_min)
    if k_max < k_min:
        raise InvalidSetting("k_max", f"be at least `k_min`, {k_min}", k_max)
    return min(classes - 1, max(k_min, min(classes // 20, k_max)))


class TopK(Term):
    """:func:`topk_margin` of ``candidate.logits`` for ``candidate.target``; unbounded below.

    ``k`` is 1 for the baseline; :func:`adaptive_k` gives it from the number of classes.

    Raises:
        InvalidSetting: for ``k`` below 1 at once, for ``k`` above C - 1 in ``forward``.
    """

    lower_bound = -math.inf

    def __init__(self, *, k: int = 1) -> None:
        super().__init__()
        self.k = _positive(k)

    def forward(self, candidate: Candidate) -> Tensor:
        return topk_margin(candidate.logits, candidate.target, k=self.k)

    def extra_repr(self) -> str:
        """Return ``k`` for the printed objective."""
        return f"k={self.k}"


def topk_softplus(logits: Tensor, target: Tensor, *, k: int = 1, margin: float = 0.0) -> Tensor:
    r"""Return the softplus of :func:`topk_margin`: its form for weightings that need terms of at least 0.

    .. math:: \log(1 + e^{L_{\mathrm{topk}} + m})

    Shapes ``(B, C), (B,) -> (B,)``; range ``[0, inf)``, where 0 is reached by rounding far out; :math:`\log 2` where
    the target leads its rivals' mean by ``margin`` logits. The gradient is that of :func:`topk_margin` times a factor
    in (0, 1), which fades as the target leads by more than the margin: without one, 2 % of it is left at a lead of 4.

    Raises:
        InvalidSetting: for what :func:`topk_margin` refuses.

    >>> import torch
    >>> topk_softplus(torch.tensor([[1.0, 1.0], [90.0, -90.0]]), torch.tensor([0, 1]))
    tensor([  0.6931, 180.0000])
    """
    return F.softplus(topk_margin(logits, target, k=k) + margin)


class TopKSoftplus(Term):
    """:func:`topk_softplus` of ``candidate.logits`` for ``candidate.target``; :class:`TopK` with the lower bound 0.

    Raises:
        InvalidSetting: for ``k`` below 1 or a negative ``margin`` at once, for ``k`` above C - 1 in ``forward``.
    """

    lower_bound = 0.0

    def __init__(self, *, k: int = 1, margin: float = 0.0) -> None:
        super().__init__()
        if margin < 0:
            raise InvalidSetting("margin", "be at least 0", margin)
        self.k = _positive(k)
        self.margin = margin

    def forward(self, candidate: Candidate) -> Tensor:
        return topk_softplus(candidate.logits, candidate.target, k=self.k, margin=self.margin)

    def extra_repr(self) -> str:
        """Return the numbers for the printed objective."""
        return f"k={self.k}, margin={self.margin}"


def _positive(k: int) -> int:
    if k < 1:
        raise InvalidSetting("k", "be a positive integer", k, "Leave it out for the hard maximum, 1.")
    return k
