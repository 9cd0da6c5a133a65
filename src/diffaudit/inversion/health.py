"""Looks at a training while it runs: are its vectors unit, do its terms pull, and is everything finite?

What the looks amount to is said by :mod:`diffaudit.study.health`, from the points alone.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting, NotFinite
from diffaudit.objective import Objective, Scored
from diffaudit.records import HealthPoint
from diffaudit.terms import LearnedCentre, Term
from diffaudit.weighting.gradient import loss_gradients
from diffaudit.weighting.uncertainty import Uncertainty


def norm_error(vectors: Tensor) -> float:
    """Return the largest distance of a vector's length from 1.

    Shapes ``(..., D) -> number``; range ``[0, inf)``; NaN where a vector is.

    >>> norm_error(torch.tensor([[0.6, 0.8], [0.0, 0.5]]))
    0.5
    """
    lengths: Tensor = torch.linalg.vector_norm(vectors.detach().double(), dim=-1)
    return float((lengths - 1).abs().max())


def cosine_range(vectors: Tensor, others: Tensor, present: Tensor | None = None) -> tuple[float, float] | None:
    """Return the least and the largest inner product of each vector with its own others.

    Shapes ``(B, D), (B, D) or (B, N, D), (B, N) -> two numbers``; None where no other is ``present``. For unit vectors
    they are cosines, in [-1, 1]; nothing is normalised here, so that others show.

    Raises:
        InvalidSetting: for shapes that do not fit, or no others.

    >>> cosine_range(torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    (0.0, 1.0)
    """
    rows = others[:, None] if others.ndim == 2 else others
    if rows.ndim != 3 or rows.numel() == 0 or (rows.shape[0], rows.shape[2]) != tuple(vectors.shape):
        raise InvalidSetting("others", f"hold vectors for each of {tuple(vectors.shape)}", tuple(others.shape))
    products = (vectors.detach().double()[:, None] * rows.detach().double()).sum(-1)
    seen = products.flatten() if present is None else products[present]
    return (float(seen.min()), float(seen.max())) if len(seen) else None


def satisfied_share(values: Tensor) -> float:
    """Return the share of the images for which a hinge is exactly 0: satisfied, hence without gradient.

    Shapes ``(B,) -> number``; range ``[0, 1]``.

    >>> satisfied_share(torch.tensor([0.0, 0.3, 0.0, 0.0]))
    0.75
    """
    return float((values == 0).double().mean())


def term_gradients(parts: Mapping[str, Tensor], parameters: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return where each term pulls the parameters: the gradient of its batch mean, as one flat vector.

    Shapes ``{name: () or (B,)}, [any] -> {name: (P,)}``. Terms without gradient, which are only watched, are left out.
    To be called before the backward pass of the step: the graph is kept, and no ``.grad`` is touched, so a training
    that is looked at ends with the same bits. Costs one backward pass per term.

    >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> term_gradients({"id": weight, "cls": weight.prod(), "watched": torch.ones(2)}, [weight])
    {'id': tensor([0.5000, 0.5000]), 'cls': tensor([2., 1.])}
    """
    pulling = {name: values.mean() for name, values in parts.items() if values.requires_grad}
    if not pulling:
        return {}
    return dict(zip(pulling, loss_gradients(list(pulling.values()), parameters).unbind(), strict=True))


def gradient_cosines(gradients: Mapping[str, Tensor]) -> dict[str, dict[str, float | None]]:
    """Return the cosine between the gradients of every two terms, each pair once, in the order given.

    Shapes ``{name: (P,)} -> {name: {later name: number}}``; range ``[-1, 1]``, negative where two terms are in
    conflict; None where a gradient is 0 or not finite.

    Paper: Yu, Kumar, Gupta, Levine, Hausman, Finn, "Gradient Surgery for Multi-Task Learning" (2020, arXiv:2001.06782),
    definition 1, for this cosine as conflict.

    >>> gradient_cosines({"id": torch.tensor([2.0, 0.0]), "cls": torch.tensor([-1.0, 0.0]), "reg": torch.zeros(2)})
    {'id': {'cls': -1.0, 'reg': None}, 'cls': {'reg': None}}
    """
    found: dict[str, dict[str, float | None]] = {}
    for (one, first), (other, second) in combinations(gradients.items(), 2):
        lengths = float(first.double().norm() * second.double().norm())
        product = float(first.double() @ second.double())
        defined = 0 < lengths < float("inf")
        found.setdefault(one, {})[other] = max(-1.0, min(1.0, product / lengths)) if defined else None
    return found


def require_finite(name: str, value: Tensor, parts: Mapping[str, Tensor], *, step: int) -> None:
    """Refuse to go on where ``value`` is not finite, naming the parts that are not, or itself where they all are.

    To be called before the optimiser steps, with the weighted value and the unweighted terms, and once more with the
    gradient's norm: the parameters are then still those of the step before and may be saved. A term that weighs nothing
    may be NaN, as long as the value is finite.

    Raises:
        NotFinite: as said.

    >>> require_finite("value", torch.tensor([1.0]), {"watched": torch.tensor([float("nan")])}, step=3)
    """
    if not bool(value.isfinite().all()):
        raise NotFinite([part for part, values in parts.items() if not bool(values.isfinite().all())] or [name], step)


def health_point(
    stage: str,
    step: int,
    candidate: Candidate,
    scored: Scored,
    parameters: Sequence[Tensor],
    objective: Objective,
    classes: Tensor,
) -> HealthPoint:
    """Return a look at a step, taken after its terms and before its backward pass.

    ``parameters`` are those that the stage trains, ``classes (n,)`` the indices sought.
    """
    gradients = term_gradients(scored.terms, parameters)
    negatives, present = candidate.negatives, candidate.negatives_present
    unit = {
        "embedding": candidate.embedding,
        "anchor": candidate.anchor,
        "negatives": negatives if negatives is None or present is None else negatives[present],
    }
    norm_errors = {name: norm_error(some) for name, some in unit.items() if some is not None and len(some)}
    weighting = objective.weighting
    learned = weighting if isinstance(weighting, Uncertainty) else None
    hinges = [name for name, term in objective.terms.items() if isinstance(term, Term) and term.hinge]
    centres = [term for term in objective.terms.values() if isinstance(term, LearnedCentre)]
    travel = centres[0].travel(classes) if centres else None
    return HealthPoint(
        stage=stage,
        step=step,
        norm_error=norm_errors,
        positives=_range_or_none(candidate.embedding, candidate.anchor),
        negatives=_range_or_none(candidate.embedding, negatives, present),
        gradient_norms={name: float(gradient.norm()) for name, gradient in gradients.items()},
        gradient_cosines=gradient_cosines(gradients),
        satisfied={name: satisfied_share(scored.parts[name]) for name in hinges},
        weights=weighting.weights(step),
        log_variances={} if learned is None else learned.logged(),
        at_clamp={} if learned is None else learned.at_clamp(),
        centre_travel=None if travel is None else float(travel.max()),
    )


def _range_or_none(
    vectors: Tensor | None, others: Tensor | None, present: Tensor | None = None
) -> tuple[float, float] | None:
    return None if vectors is None or others is None else cosine_range(vectors, others, present)
