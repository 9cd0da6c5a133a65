"""Weightings of gradients: they see where the losses pull the parameters, and meet the loop, not the objective."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, MissingExtra, NotFinite

Aggregator = Literal["upgrad", "dualproj", "mgda", "imtl_g", "aligned_mtl"]


def loss_gradients(losses: Sequence[Tensor] | Tensor, parameters: Sequence[Tensor]) -> Tensor:
    r"""Return the gradient of every loss, one flat row each: the Jacobian.

    .. math:: J_{k} = \nabla_\theta L_k

    Shapes ``K times (), [any] -> (K, P)``, ``P`` the entries of all parameters in the order given; what a loss
    does not reach has zeros. One backward pass per loss; the graph is kept and no ``.grad`` is touched.

    Raises:
        InvalidSetting: for losses that are none, or not one number each; for no parameters.

    >>> weight = torch.tensor([1.0, 2.0], requires_grad=True)
    >>> loss_gradients([weight.sum(), weight.prod()], [weight])
    tensor([[1., 1.],
            [2., 1.]])
    """
    if len(losses) == 0 or any(loss.ndim > 0 for loss in losses):
        raise InvalidSetting("losses", "be at least one, each a single number", [tuple(loss.shape) for loss in losses])
    if not parameters:
        raise InvalidSetting("parameters", "be at least one", [])
    rows = []
    for loss in losses:
        found: Sequence[Tensor | None] = [None] * len(parameters)
        if loss.requires_grad:
            found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        reached = [
            torch.zeros_like(parameter) if gradient is None else gradient
            for gradient, parameter in zip(found, parameters, strict=True)
        ]
        rows.append(torch.cat([gradient.flatten() for gradient in reached]))
    return torch.stack(rows)


class GradientWeighting(nn.Module, ABC):
    """Weights of losses from their gradients: ``losses (K,), parameters -> weights (K,)``, without gradient.

    The losses are batch means, for weights of gradients are shared by the batch; the loop then descends
    ``(weights * losses).sum()``.
    """

    @abstractmethod
    def forward(self, losses: Tensor, parameters: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        """Weights ``(K,)``, in the order of the losses; ``names`` are what messages call these."""


class JacobianDescent(GradientWeighting):
    r"""Weights by which an aggregator of TorchJD combines the gradients, from their Gramian :math:`J J^\top`.

    ``upgrad``, the default, projects each gradient onto the cone of directions along which no loss grows, and takes the
    mean: with gradients that agree every weight is :math:`1/K`, and no combined step works against a loss. A loss that
    is multiplied by a number counts that much more, so weights given beforehand act as preferences. ``dualproj``
    projects the mean of the gradients instead; ``mgda`` takes the shortest convex combination; ``imtl_g`` and
    ``aligned_mtl`` balance the gradients and promise no agreement. All are deterministic and keep no state: aggregators
    of TorchJD that draw at random or remember are left out, so that a run which goes on ends as if it never stopped.

    Costs one backward pass per loss, and ``K`` times the memory of the parameters.

    Paper: Quinton, Rey, "Jacobian Descent for Multi-Objective Optimization" (2024, arXiv:2406.16232), for the frame and
    UPGrad; Lopez-Paz, Ranzato, "Gradient Episodic Memory for Continual Learning" (2017, arXiv:1706.08840), equation 11,
    for DualProj; Sener, Koltun, "Multi-Task Learning as Multi-Objective Optimization" (2018, arXiv:1810.04650), for
    MGDA; Liu, Li, Kuang, Xue, Chen, Yang, Liao, Zhang, "Towards Impartial Multi-task Learning" (ICLR 2021), for IMTL-G;
    Senushkin, Patakin, Kuznetsov, Konushin, "Independent Component Alignment for Multi-Task Learning" (2023,
    arXiv:2305.19000), for Aligned-MTL.

    Raises:
        InvalidSetting: for an unknown aggregator at once; in ``forward``, for losses that are not ``(K,)`` or have not
            a name each.
        MissingExtra: without TorchJD or its solver.
        NotFinite: in ``forward``, for gradients that are not finite.
    """

    def __init__(self, aggregator: Aggregator = "upgrad") -> None:
        super().__init__()
        if aggregator not in get_args(Aggregator):
            raise InvalidSetting("aggregator", f"be one of {', '.join(get_args(Aggregator))}", aggregator)
        self.aggregator = aggregator
        self._weigh = _weights_from_gramian(aggregator)

    def forward(self, losses: Tensor, parameters: Sequence[Tensor], names: Sequence[str]) -> Tensor:
        if losses.ndim != 1:
            raise InvalidSetting("losses", "be one batch mean per group, of shape (K,)", tuple(losses.shape))
        if len(names) != len(losses):
            raise InvalidSetting("names", f"be one for each of {len(losses)} losses", list(names))
        gradients = loss_gradients(losses, parameters)
        gramian = gradients @ gradients.T
        if not bool(gramian.isfinite().all()):
            lengths = gramian.diagonal().isfinite().tolist()
            raise NotFinite([f"gradient of {name}" for name, finite in zip(names, lengths, strict=True) if not finite])
        return self._weigh(gramian)

    def extra_repr(self) -> str:
        """Return the aggregator for the printed loop."""
        return f"aggregator={self.aggregator!r}"


def _weights_from_gramian(aggregator: Aggregator) -> Callable[[Tensor], Tensor]:
    """TorchJD's weighting ``(K, K) -> (K,)``; its own ImportError speaks of TorchJD's extras, ours of ours."""
    try:
        from torchjd.aggregation import (
            AlignedMTLWeighting,
            DualProjWeighting,
            IMTLGWeighting,
            MGDAWeighting,
            UPGradWeighting,
        )

        weigh: Callable[[Tensor], Tensor]
        match aggregator:
            case "upgrad":
                weigh = UPGradWeighting()
            case "dualproj":
                weigh = DualProjWeighting()
            case "mgda":
                weigh = MGDAWeighting()
            case "imtl_g":
                weigh = IMTLGWeighting()
            case "aligned_mtl":
                weigh = AlignedMTLWeighting()
    except ImportError as error:
        raise MissingExtra("torchjd", "torchjd") from error
    return weigh
