"""Prior terms: do the trained weights still predict the noise of real images?"""

from torch import Tensor

from diffaudit.candidate import Candidate
from diffaudit.terms._checks import require_rows, required
from diffaudit.terms.base import Term


def noise_mse(noise: Tensor, prediction: Tensor) -> Tensor:
    r"""Return the mean squared error of the predicted noise, per image.

    .. math:: \frac{1}{chw} \left\|\hat\epsilon_b - \epsilon_b\right\|^2

    Shapes ``(B, c, h, w), (B, c, h, w) -> (B,)``; range ``[0, inf)``; 1 is the expectation for a prediction of zeros.

    Paper: Ho, Jain, Abbeel, "Denoising Diffusion Probabilistic Models" (2020, arXiv:2006.11239), equation 14.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> noise_mse(torch.zeros(2, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]], [[[0.0, 2.0]]]]))
    tensor([5., 2.])
    """
    require_rows("prediction", prediction, noise, "noise")
    return (prediction - noise).square().flatten(1).mean(1)


class PriorNoise(Term):
    """:func:`noise_mse` on the prior's own draw: ``candidate.noise`` against ``candidate.prediction``.

    Raises:
        InvalidSetting: in ``forward``, for a candidate without the draw.
    """

    lower_bound = 0.0

    def forward(self, candidate: Candidate) -> Tensor:
        remedy = "The loop makes the prior's own draw when a prior term is in the objective."
        return noise_mse(
            required("noise", candidate.noise, remedy),
            required("prediction", candidate.prediction, remedy),
        )
