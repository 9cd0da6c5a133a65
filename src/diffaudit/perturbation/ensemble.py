"""Several surrogate models: their gradients at the decoded image, weighted per image into one."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting

Look = Callable[[Tensor], Tensor]


class Combined(NamedTuple):
    """``weights (M, B)`` that sum to 1 over the models, and the combined image ``gradient (B, 3, H, W)``."""

    weights: Tensor
    gradient: Tensor


def image_gradients(
    models: Sequence[Look], image: Tensor, loss: Look, *, views: Sequence[Look] = ()
) -> tuple[Tensor, Tensor]:
    """Return every model's gradient of the loss at the image, ``(M, B, 3, H, W)``, and the losses ``(M, B)``.

    ``models`` map images to logits ``(B, C)``, ``loss`` logits to one value per image. The image is cut from what made
    it, so nothing behind it is differentiated: that is one :func:`.pull_back`, after the gradients are combined. With
    ``views`` (expectation over transformations) losses and gradients are means over the views, which are the same for
    every model.

    Raises:
        InvalidSetting: for no model, and for a loss that is reduced over the batch.
    """
    if not models:
        raise InvalidSetting("models", "hold at least one surrogate", 0)
    looks = views or (_as_it_is,)
    start = image.detach().requires_grad_()
    gradients, losses = [], []
    with torch.enable_grad():
        for model in models:
            gradient, value = torch.zeros_like(image), image.new_zeros(len(image))
            for look in looks:
                values = loss(model(look(start)))
                if values.shape != (len(image),):
                    raise InvalidSetting("loss", f"be one value per image, ({len(image)},)", tuple(values.shape))
                gradient += torch.autograd.grad(values.sum(), start)[0] / len(looks)
                value += values.detach() / len(looks)
            gradients.append(gradient)
            losses.append(value)
    return torch.stack(gradients), torch.stack(losses)


def fused(models: Sequence[Look]) -> Look:
    r"""Return the ensemble as one model, whose logits are the mean of theirs: :math:`x \mapsto \frac1M \sum_m l_m(x)`.

    >>> fused([lambda images: images, lambda images: 3 * images])(torch.ones(1, 2))
    tensor([[2., 2.]])
    """
    return lambda images: torch.stack([model(images) for model in models]).mean(0)


def weighted_gradient(gradients: Tensor, weights: Tensor) -> Tensor:
    r"""Return :math:`\sum_m w_{m,b} g_{m,b}`, each image by its own weights.

    Shapes ``(M, B, 3, H, W), (M, B) -> (B, 3, H, W)``.

    Raises:
        InvalidSetting: for other than one weight per model and image.

    >>> weighted_gradient(torch.ones(2, 1, 3, 1, 1), torch.tensor([[0.25], [0.5]])).flatten()
    tensor([0.7500, 0.7500, 0.7500])
    """
    if weights.shape != gradients.shape[:2]:
        rule = f"have one value per model and image, {tuple(gradients.shape[:2])}"
        raise InvalidSetting("weights", rule, tuple(weights.shape))
    return (weights[:, :, None, None, None] * gradients).sum(0)


def unit_gradients(gradients: Tensor, *, eps: float = 1e-12) -> Tensor:
    r"""Return :math:`g / (\|g\| + \epsilon)`, with the norm of each image under each model.

    Shape ``(..., 3, H, W)``, unchanged. Models differ in the length of their gradients by orders of magnitude,
    and the longest would decide alone.

    >>> unit_gradients(torch.tensor([3.0, 4.0, 0.0]).view(1, 3, 1, 1)).flatten()
    tensor([0.6000, 0.8000, 0.0000])
    """
    units: Tensor = gradients / (gradients.flatten(-3).norm(dim=-1)[..., None, None, None] + eps)
    return units


def worst_weights(losses: Tensor) -> Tensor:
    """Return weight 1 for the model with the largest loss, the least fooled one, per image; ``(M, B) -> (M, B)``.

    The attacker lowers the loss, so the gradient is that of its maximum over the models; a tie goes to the earlier one.

    >>> worst_weights(torch.tensor([[1.0, 5.0], [2.0, 3.0]]))
    tensor([[0., 1.],
            [1., 0.]])
    """
    return nn.functional.one_hot(losses.argmax(0), len(losses)).T.to(losses)


def agreement_weights(gradients: Tensor, *, tau: float = 7.0) -> Tensor:
    r"""Return how much each model's direction agrees with the mean direction, as weights, per image.

    .. math:: w_{\cdot,b} = \mathrm{softmax}_m\left(\tau \cos(\hat g_{m,b}, \tfrac1M \sum_n \hat g_{n,b})\right),
        \qquad \hat g = g / (\|g\| + \epsilon)

    Shapes ``(M, B, 3, H, W) -> (M, B)``. Each image is flattened to one vector, and its cosines are its own:
    ``cos(..., dim=None)``, as the rule circulates, does not exist, and one cosine of the whole batch would let an image
    weigh models by what they say of its batch-mates. Where the directions cancel, or have no length, weights are equal.

    >>> one, other = torch.eye(3)[:2].view(2, 1, 3, 1, 1)
    >>> agreement_weights(torch.stack([one, one, one, other]), tau=1.0).flatten()
    tensor([0.2832, 0.2832, 0.2832, 0.1505])
    """
    units = unit_gradients(gradients).flatten(2)
    return (tau * nn.functional.cosine_similarity(units, units.mean(0, keepdim=True), dim=2)).softmax(0)


class EnsembleRule(nn.Module, ABC):
    """``gradients (M, B, 3, H, W), losses (M, B), margins (M, B) -> Combined``; an image's row is its own.

    Gradients and losses, to lower, are those of an iteration's views; margins are by how much each model is fooled by
    the 8-bit picture itself, so that they compare from one iteration to the next.
    """

    @abstractmethod
    def forward(self, gradients: Tensor, losses: Tensor, margins: Tensor) -> Combined:
        """Weights and their combined gradient."""


class Weighted(EnsembleRule):
    """:func:`weighted_gradient` by weights that are given, one per model, and brought to sum 1; None: equal ones.

    Raises:
        InvalidSetting: for weights that are negative, not finite or all 0; in ``forward``, for other than M of them.
    """

    weights: Tensor | None

    def __init__(self, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        given = None if weights is None else torch.tensor(weights)
        if given is not None and not (bool((given >= 0).all()) and 0 < float(given.sum()) < float("inf")):
            raise InvalidSetting("weights", "be finite numbers of at least 0, not all 0", list(weights or ()))
        self.register_buffer("weights", None if given is None else given / given.sum())

    def forward(self, gradients: Tensor, losses: Tensor, margins: Tensor) -> Combined:
        weights = self.weights
        if weights is None:
            weights = losses.new_full((len(losses),), 1 / len(losses))
        if len(weights) != len(losses):
            raise InvalidSetting("weights", f"be one per model, {len(losses)}", len(weights))
        spread = weights.to(losses)[:, None].expand_as(losses)
        return Combined(spread, weighted_gradient(gradients, spread))


class Worst(EnsembleRule):
    """:func:`worst_weights`: the gradient of the least fooled model."""

    def forward(self, gradients: Tensor, losses: Tensor, margins: Tensor) -> Combined:
        weights = worst_weights(losses)
        return Combined(weights, weighted_gradient(gradients, weights))


class Agreement(EnsembleRule):
    """:func:`agreement_weights` on :func:`unit_gradients`.

    Raises:
        InvalidSetting: for a ``tau`` that is negative: models would count the more the less they agree.
    """

    def __init__(self, *, tau: float = 7.0) -> None:
        super().__init__()
        if not 0 <= tau < float("inf"):
            raise InvalidSetting("tau", "be a finite number of at least 0", tau)
        self.tau = tau

    def forward(self, gradients: Tensor, losses: Tensor, margins: Tensor) -> Combined:
        weights = agreement_weights(gradients, tau=self.tau)
        return Combined(weights, weighted_gradient(unit_gradients(gradients), weights))


def _as_it_is(image: Tensor) -> Tensor:
    return image
