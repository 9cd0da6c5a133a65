"""Adversarial losses on the logits of one surrogate model: what the attacker lowers to fool it, one value an image."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_labels, require_matrix, require_weight
from diffaudit.terms.classifier import topk_margin
from diffaudit.terms.margin import logit_hinge

TINY = 1e-12
"""Added to the scale of :func:`dlr`, as in AutoAttack: the three largest logits may be equal."""


def negated_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the log-probability of the true class, which an untargeted attacker lowers.

    .. math:: \log p_{y_b} = l_{y_b} - \log \sum_j e^{l_j}

    Shapes ``(B, C), (B,) -> (B,)``; range ``(-inf, 0]``. Unbounded below: once a model is fooled, the loss still falls.

    Paper: Goodfellow, Shlens, Szegedy, "Explaining and Harnessing Adversarial Examples" (2014, arXiv:1412.6572).

    Raises:
        InvalidSetting: for logits that are no matrix, for other than one label per row.

    >>> negated_cross_entropy(torch.zeros(1, 2), torch.tensor([0]))
    tensor([-0.6931])
    """
    return -goal_cross_entropy(logits, labels)


def goal_cross_entropy(logits: Tensor, goal: Tensor) -> Tensor:
    r"""Return the cross-entropy to the class sought: what a targeted attacker lowers, :math:`-\log p_{g_b}`.

    Shapes ``(B, C), (B,) -> (B,)``; range ``[0, inf)``.

    Raises:
        InvalidSetting: for logits that are no matrix, for other than one label per row.

    >>> goal_cross_entropy(torch.zeros(1, 4), torch.tensor([2])) / math.log(2)
    tensor([2.])
    """
    require_matrix("logits", logits)
    require_labels(goal, len(logits))
    return F.cross_entropy(logits, goal.long(), reduction="none")


def fooling_margin(logits: Tensor, labels: Tensor, *, kappa: float = 0.0) -> Tensor:
    r"""Return by how much the strongest rival misses a lead of ``kappa`` over the true class, per image.

    .. math:: \max\left(0,\; l_{y_b} - \max_{k \ne y_b} l_k + \kappa\right)

    Shapes ``(B, C), (B,) -> (B,)``; range ``[0, inf)``; ``kappa`` is in the units of the logits. The true class is
    masked by ``-inf``: multiplied by 0 it would be a rival of logit 0, and where all logits are negative the margin
    would be measured against that. The targeted form, :math:`\max(0, \max_{k \ne g} l_k - l_g + \kappa)`, is
    :func:`.logit_hinge` of the goal.

    Paper: Carlini, Wagner, "Towards Evaluating the Robustness of Neural Networks" (2016, arXiv:1608.04644), f6.

    Raises:
        InvalidSetting: for a ``kappa`` that is negative or not finite, and for what :func:`.topk_margin` refuses.

    >>> fooling_margin(torch.tensor([[-1.0, -3.0], [-3.0, -1.0]]), torch.tensor([0, 0]), kappa=1.0)
    tensor([3., 0.])
    """
    require_weight("kappa", kappa)
    return F.relu(kappa - topk_margin(logits, labels))


def goal_margin(logits: Tensor, goal: Tensor, *, kappa: float = 0.0) -> Tensor:
    r"""Return :func:`.logit_hinge` of the class sought with ``kappa`` for margin: :func:`fooling_margin`, targeted.

    Shapes ``(B, C), (B,) -> (B,)``; range ``[0, inf)``.

    >>> goal_margin(torch.tensor([[-1.0, -3.0], [-3.0, -1.0]]), torch.tensor([1, 1]), kappa=1.0)
    tensor([3., 0.])
    """
    require_weight("kappa", kappa)
    return logit_hinge(logits, goal, margin=kappa)


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    r"""Return the difference-of-logits ratio, the lead of the true class on the scale of the three largest logits.

    .. math:: \frac{l_{y_b} - \max_{k \ne y_b} l_k}{l_{\pi_1} - l_{\pi_3}}

    Shapes ``(B, C), (B,) -> (B,)``; range ``(-inf, 1]``, negative where the model is fooled; :math:`\pi` sorts the
    logits, largest first. Adding a number to all logits or multiplying them by one changes nothing, so a model cannot
    hide its gradient behind their scale. The sign is that of a loss to lower; the paper's is to be raised.

    Paper: Croce, Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse parameter-free
    attacks" (2020, arXiv:2003.01690), equation 6.

    Raises:
        InvalidSetting: for fewer than 3 classes, and for what :func:`.topk_margin` refuses.

    >>> dlr(torch.tensor([[4.0, 3.0, 0.0], [3.0, 4.0, 0.0]]), torch.tensor([0, 0]))
    tensor([ 0.2500, -0.2500])
    """
    _require_classes(logits, 3)
    largest = logits.topk(3, dim=1).values
    return -topk_margin(logits, labels) / (largest[:, 0] - largest[:, 2] + TINY)


def goal_dlr(logits: Tensor, labels: Tensor, goal: Tensor) -> Tensor:
    r"""Return the lead of the true class over the class sought on the scale of the four largest logits.

    .. math:: \frac{l_{y_b} - l_{g_b}}{l_{\pi_1} - (l_{\pi_3} + l_{\pi_4})/2}

    Shapes ``(B, C), (B,), (B,) -> (B,)``; range ``(-inf, inf)``, negative where the goal leads the true class.

    Paper: Croce, Hein (2020, arXiv:2003.01690), equation 7, with the sign of a loss to lower.

    Raises:
        InvalidSetting: for fewer than 4 classes, for logits that are no matrix, for other than one label per row.

    >>> goal_dlr(torch.tensor([[4.0, 3.0, 1.0, 0.0]]), torch.tensor([0]), torch.tensor([3]))
    tensor([1.1429])
    """
    _require_classes(logits, 4)
    require_labels(labels, len(logits))
    require_labels(goal, len(logits))
    largest = logits.topk(4, dim=1).values
    lead = logits.gather(1, labels[:, None].long()) - logits.gather(1, goal[:, None].long())
    return lead[:, 0] / (largest[:, 0] - largest[:, 2:].mean(1) + TINY)


def distribution_distance(logits: Tensor, goal: Tensor, *, kind: Literal["js", "ce"] = "js") -> Tensor:
    r"""Return how far the model's probabilities ``p`` are from a distribution ``q`` over classes, per image, in nats.

    .. math:: \mathrm{js}: \tfrac12 \mathrm{KL}(p \| m) + \tfrac12 \mathrm{KL}(q \| m),\; m = \tfrac12 (p + q)
        \qquad \mathrm{ce}: -\sum_k q_k \log p_k

    Shapes ``(B, C), (C,) or (B, C) -> (B,)``; range ``[0, log 2]`` of ``js``, which is 0 at the goal alone, and
    ``[H(q), inf)`` of ``ce``. Both have their least value at ``p = q``. Computed from log-probabilities: classes of
    probability 0 on either side do no harm.

    Paper: Lin, "Divergence Measures Based on the Shannon Entropy" (1991), for ``js``.

    Raises:
        InvalidSetting: for logits that are no matrix, for a goal of another shape or whose rows are no distributions.

    >>> distribution_distance(torch.zeros(1, 4), uniform_goal(4))
    tensor([0.])
    >>> distribution_distance(torch.tensor([[200.0, 0.0]]), torch.tensor([0.0, 1.0]))
    tensor([0.6931])
    """
    require_matrix("logits", logits)
    _require_distribution(logits, goal)
    own = logits.log_softmax(1)
    other = goal.to(own).expand_as(own)
    if kind == "ce":
        return -(other * own).sum(1)
    middle = torch.logaddexp(own, other.log()) - math.log(2)
    halves = own.exp() * (own - middle) + torch.xlogy(other, other) - other * middle
    return halves.sum(1) / 2


def uniform_goal(classes: int) -> Tensor:
    """Return ``(C,)`` equal probabilities: a model that no longer knows.

    >>> uniform_goal(4)
    tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    if classes < 2:
        raise InvalidSetting("classes", "be at least 2", classes)
    return torch.full((classes,), 1 / classes)


def peaked_goal(distractors: Tensor, share: float, *, classes: int) -> Tensor:
    """Return ``(B, C)`` probabilities: ``share`` spread evenly over each image's distractors, the rest over the others.

    ``distractors (B, K)`` are class indices; one that is named twice in a row counts once.

    Raises:
        InvalidSetting: for distractors that are no matrix of integers or leave no other class, and for a share outside
            (0, 1].

    >>> peaked_goal(torch.tensor([[1], [2]]), 0.8, classes=3)
    tensor([[0.1000, 0.8000, 0.1000],
            [0.1000, 0.1000, 0.8000]])
    """
    if distractors.ndim != 2 or distractors.is_floating_point() or not 1 <= distractors.shape[1] < classes:
        raise InvalidSetting(
            "distractors",
            f"be integers (B, K) with K in [1, {classes - 1}], so that another class is left",
            (*distractors.shape, distractors.dtype),
        )
    if not 0 < share <= 1:
        raise InvalidSetting("share", "be in (0, 1]", share)
    chosen = torch.zeros(len(distractors), classes, device=distractors.device).scatter(1, distractors.long(), 1.0)
    others = 1 - chosen
    return share * chosen / chosen.sum(1, keepdim=True) + (1 - share) * others / others.sum(1, keepdim=True)


def _require_classes(logits: Tensor, least: int) -> None:
    require_matrix("logits", logits)
    if logits.shape[1] < least:
        raise InvalidSetting(
            "classes", f"be at least {least} for this ratio", logits.shape[1], "Use the margin instead."
        )


def _require_distribution(logits: Tensor, goal: Tensor) -> None:
    if goal.shape not in (logits.shape, logits.shape[1:]):
        rule = f"have shape {tuple(logits.shape)} or {tuple(logits.shape[1:])}"
        raise InvalidSetting("goal", rule, tuple(goal.shape))
    if not (bool((goal >= 0).all()) and float((goal.sum(-1) - 1).abs().max()) <= 1e-4):
        raise InvalidSetting("goal", "hold probabilities that sum to 1", goal.tolist(), "Divide it by its sum.")
