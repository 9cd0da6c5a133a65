"""AdaEA: ensemble weights from how far each model's step carries over to the others, and a filter of disagreement."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.perturbation.ensemble import Combined, EnsembleRule, Look, weighted_gradient


@torch.no_grad()
def crossed_losses(
    models: Sequence[Look], image: Tensor, gradients: Tensor, adversary: Look, *, step: float = 2 / 255
) -> Tensor:
    r"""Return what model ``i`` makes of a step along model ``j``'s gradient, ``(M, M, B)`` in the order j, i.

    .. math:: A_{j,i,b} = L_i\left(\mathrm{clip}(x_b - \alpha\, \mathrm{sign}\, g_{j,b})\right)

    ``gradients (M, B, 3, H, W)`` are of losses to lower; ``adversary`` is not: it maps logits ``(B, C)`` to what the
    attacker *raises*, ``(B,)``, at least 0, such as the cross-entropy of the true class. The step is AdaEA's 2/255.
    """
    pictures = [(image - step * gradient.sign()).clamp(0, 1) for gradient in gradients]
    return torch.stack([torch.stack([adversary(model(picture)) for model in models]) for picture in pictures])


def modulation_weights(crossed: Tensor, *, beta: float = 10.0) -> Tensor:
    r"""Return AdaEA's gradient modulation: weights of the models by how their steps fool the others, per image.

    .. math:: w_{j,b} = \mathrm{softmax}_j\left(\beta \sum_{i \ne j} A_{j,i,b} / A_{i,i,b}\right)

    Shapes ``(M, M, B) -> (M, B)``, ``crossed`` as :func:`crossed_losses` gives it. The published code divides means
    over the batch, so that an image's weights depend on its batch-mates; these are each image's own.

    Paper: Chen, Yin, Chen, Chen, Liu, "An Adaptive Model Ensemble Adversarial Attack for Boosting Adversarial
    Transferability" (2023, arXiv:2308.02897).

    Raises:
        InvalidSetting: for a ``beta`` that is negative, for losses of another shape.

    >>> crossed = torch.tensor([[1.0, 2.0], [1.0, 2.0]])[:, :, None]
    >>> modulation_weights(crossed).flatten()
    tensor([0.5000, 0.5000])
    """
    if not 0 <= beta < float("inf"):
        raise InvalidSetting("beta", "be a finite number of at least 0", beta)
    if crossed.ndim != 3 or crossed.shape[0] != crossed.shape[1]:
        raise InvalidSetting("crossed", "have shape (M, M, B)", tuple(crossed.shape))
    own = crossed.diagonal(dim1=0, dim2=1).T.clamp(min=torch.finfo(crossed.dtype).eps)
    ratios = crossed / own
    others = ratios.sum(1) - ratios.diagonal(dim1=0, dim2=1).T
    return (beta * others).softmax(0)


def disparity(gradients: Tensor, *, as_published: bool = False) -> Tensor:
    r"""Return how well the models agree at every pixel: the mean cosine of their colour gradients over all pairs.

    .. math:: \frac{1}{M} \sum_m \frac{1}{M - 1} \sum_{n \ne m} \cos(g_{m,b,\cdot,h,w},\, g_{n,b,\cdot,h,w})

    Shapes ``(M, B, 3, H, W) -> (B, 1, H, W)``; range [-1, 1]; 1 for a single model. This map has a value per pixel, so
    its cosine over the channels is meant. ``as_published`` leaves out the last model's row of the outer sum, as the
    published code does: there the agreement of models that agree fully is ``(M - 1)/M``, and changes with their order.

    Paper: Chen, Yin, Chen, Chen, Liu (2023, arXiv:2308.02897).

    >>> same = torch.ones(2, 1, 3, 1, 1)
    >>> disparity(same).flatten(), disparity(same, as_published=True).flatten()
    (tensor([1.0000]), tensor([0.5000]))
    """
    models = len(gradients)
    if models == 1:
        return torch.ones_like(gradients[0, :, :1])
    units = nn.functional.normalize(gradients, dim=2)
    cosines = torch.einsum("mbchw,nbchw->mnbhw", units, units)
    rows = (cosines.sum(1) - cosines.diagonal(dim1=0, dim2=1).movedim(-1, 0)) / (models - 1)
    counted = rows[:-1] if as_published else rows
    return (counted.sum(0) / models)[:, None]


class AdaEA(EnsembleRule):
    """:func:`modulation_weights`, and the gradient set to 0 where :func:`disparity` is below the threshold.

    As published the weights are measured once, at the first iteration: ``crossed (M, M, B)`` is that measurement, and a
    rule belongs to one batch of images. ``as_published`` concerns the filter; the published code also weighs logits,
    where this weighs the gradients of the models' losses, as every rule here does.

    Raises:
        InvalidSetting: for a threshold outside [-1, 1] and for what :func:`modulation_weights` refuses.
    """

    weights: Tensor

    def __init__(
        self, crossed: Tensor, *, beta: float = 10.0, threshold: float = -0.3, as_published: bool = False
    ) -> None:
        super().__init__()
        if not -1 <= threshold <= 1:
            raise InvalidSetting("threshold", "be a cosine, in [-1, 1]", threshold)
        self.register_buffer("weights", modulation_weights(crossed, beta=beta))
        self.threshold = threshold
        self.as_published = as_published

    def forward(self, gradients: Tensor, losses: Tensor, margins: Tensor) -> Combined:
        kept = disparity(gradients, as_published=self.as_published) >= self.threshold
        return Combined(self.weights, weighted_gradient(gradients, self.weights) * kept)
