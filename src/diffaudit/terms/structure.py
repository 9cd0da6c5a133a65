"""Structure terms: is the picture still laid out as the one it was made from?"""

from typing import Literal

import torch
from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_rows
from diffaudit.terms._views import LayerWeights, paired_steps, require_layer_weights, view_of, weighed_layers
from diffaudit.terms.attention_maps import FLOOR
from diffaudit.terms.base import Term

Divergence = Literal["mse", "kl", "js"]
DIVERGENCES = ("mse", "kl", "js")


def self_attention_distance(after: Tensor, before: Tensor, *, divergence: Divergence = "mse") -> Tensor:
    r"""Return how far self-attention has moved, averaged over heads and places, per image.

    .. math:: \text{mse}: \frac{1}{K} \|a - b\|^2, \qquad \text{kl}: \sum_k a_k \log\frac{a_k}{b_k}, \qquad
        \text{js}: \tfrac{1}{2} \mathrm{KL}\left(a \,\middle\|\, \tfrac{a+b}{2}\right)
        + \tfrac{1}{2} \mathrm{KL}\left(b \,\middle\|\, \tfrac{a+b}{2}\right)

    Shapes ``(B, ..., K), (B, ..., K) -> (B,)``, a distribution over keys in the last axis; range ``[0, 2 / K]``,
    ``[0, -log(1e-7)]`` and ``[0, log 2]``. KL and JS are taken over the keys, of logarithms of probabilities that are
    raised to 1e-7 and brought back to sum 1.

    Paper: Chen, Chen, Chen, Zhang, Zou, Shi, "Diffusion Models for Imperceptible and Transferable Adversarial Attack"
    (2023, arXiv:2305.08192), for the squared difference of self-attention that keeps the layout.

    Raises:
        InvalidSetting: for shapes that differ, for a divergence that is none of the three.

    >>> after, before = torch.tensor([[[0.5, 0.5]]]), torch.tensor([[[0.75, 0.25]]])
    >>> self_attention_distance(after, before), self_attention_distance(after, before, divergence="kl")
    (tensor([0.0625]), tensor([0.1438]))
    """
    require_divergence(divergence)
    require_rows("after", after, before, "before")
    if divergence == "mse":
        return (after - before).square().flatten(1).mean(1)
    after, before = _floored(after), _floored(before)
    if divergence == "kl":
        keyed = after * (after.log() - before.log())
    else:
        middle = ((after + before) / 2).log()
        keyed = (after * (after.log() - middle) + before * (before.log() - middle)) / 2
    # Rounding may leave a sum of nearly nothing below 0.
    return keyed.sum(-1).flatten(1).mean(1).clamp(min=0)


class SelfAttention(Term):
    r""":func:`self_attention_distance` of the perturbed branch to the clean one, as a sum over layers.

    .. math:: \frac{1}{S} \sum_{i=1}^{S} \sum_l w_l \,
        D\left(A^{l,i}_{\text{after}} \,\|\, A^{l,i}_{\text{before}}\right)

    It is the mean over the ``S`` recorded steps, so that the value does not grow with their number. The clean branch is
    detached here too, whatever the loop did. ``layers`` are the weights; None: all self-attention that was recorded, at
    1 each. Larger weights of up blocks with many places hold fine structure.

    Raises:
        InvalidSetting: for a divergence that is none of ``mse``, ``kl`` and ``js``, for weights that are negative or of
            cross-attention; in ``forward``, for a candidate without recorded maps of these layers in both branches.
    """

    lower_bound = 0.0

    def __init__(self, *, divergence: Divergence = "mse", layers: LayerWeights | None = None) -> None:
        super().__init__()
        require_divergence(divergence)
        self.divergence: Divergence = divergence
        self.layers = require_layer_weights(layers, "self")

    def forward(self, candidate: Candidate) -> Tensor:
        view = view_of(candidate)
        chosen = weighed_layers(view.perturbed, self.layers, "self")
        values = [
            weight * self_attention_distance(after, before.detach(), divergence=self.divergence)
            for weight, after, before in paired_steps(view.perturbed, view.clean, chosen)
        ]
        return torch.stack(values).sum(0)

    def extra_repr(self) -> str:
        """Return the divergence for the printed objective."""
        return f"divergence={self.divergence}"


def require_divergence(divergence: str) -> None:
    """Refuse a word that names none of the three."""
    if divergence not in DIVERGENCES:
        raise InvalidSetting("divergence", f"be one of {', '.join(DIVERGENCES)}", divergence)


def _floored(probabilities: Tensor) -> Tensor:
    raised = probabilities.clamp(min=FLOOR)
    return raised / raised.sum(-1, keepdim=True)
