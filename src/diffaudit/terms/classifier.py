"""Classifier terms: does the target classifier see the class sought?"""

import math

from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_matrix, require_rows, required
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
    if target.shape != (rows,) or target.is_floating_point():
        raise InvalidSetting("target", f"be one integer per image, {rows} in all", (*target.shape, target.dtype))
    if not 1 <= k <= classes - 1:
        raise InvalidSetting("k", f"be an integer in [1, {classes - 1}], for {classes} classes have no more rivals", k)
    labels = target[:, None].long()
    rivals = logits.scatter(1, labels, -math.inf)
    return rivals.topk(k, dim=1).values.mean(1) - logits.gather(1, labels)[:, 0]


class TopK(Term):
    """:func:`topk_margin` of ``candidate.logits`` for ``candidate.target``; unbounded below.

    Raises:
        InvalidSetting: for ``k`` below 1 at once, for ``k`` above C - 1 in ``forward``.
    """

    lower_bound = -math.inf

    def __init__(self, *, k: int = 1) -> None:
        super().__init__()
        if k < 1:
            raise InvalidSetting("k", "be a positive integer", k, "Leave it out for the hard maximum, 1.")
        self.k = k

    def forward(self, candidate: Candidate) -> Tensor:
        return topk_margin(candidate.logits, candidate.target, k=self.k)

    def extra_repr(self) -> str:
        """Return ``k`` for the printed objective."""
        return f"k={self.k}"


def feature_distance(features: Tensor, centres: Tensor) -> Tensor:
    r"""Return the squared distance of each image's features to its centre, divided by their dimension.

    .. math:: \frac{1}{P} \left\|p_b - c_b\right\|^2

    Shapes ``(B, P), (B, P) -> (B,)``, one centre per image; range ``[0, inf)``.

    Paper: Wen, Zhang, Li, Qiao, "A Discriminative Feature Learning Approach for Deep Face Recognition" (ECCV 2016),
    the centre loss, here with given centres.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> feature_distance(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    tensor([12.5000,  0.0000])
    """
    require_rows("features", features, centres, "centres")
    return (features - centres).square().mean(1)


class FeatureCentre(Term):
    """:func:`feature_distance` of ``candidate.features`` to the centre of the target's class.

    The centres ``(C, P)``, rows by class index, are a buffer: they move with the term, are saved with it and never
    learn.

    Raises:
        InvalidSetting: for centres that are no matrix at once; in ``forward``, for a classifier that shows no features,
            features of another dimension or another number of classes.
    """

    lower_bound = 0.0
    centres: Tensor

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        require_matrix("centres", centres)
        self.register_buffer("centres", centres.detach().clone())

    def forward(self, candidate: Candidate) -> Tensor:
        features = required(
            "features",
            candidate.features,
            "The target classifier shows no penultimate features: leave this term out or load the model as a module.",
        )
        classes = candidate.logits.shape[1]
        if len(self.centres) != classes:
            raise InvalidSetting("centres", f"have one row per class, {classes}", len(self.centres))
        return feature_distance(features, self.centres[candidate.target])

    def extra_repr(self) -> str:
        """Return the number and dimension of the centres for the printed objective."""
        classes, dimension = self.centres.shape
        return f"classes={classes}, dimension={dimension}"
