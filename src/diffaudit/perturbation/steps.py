"""From a gradient at the decoded image to a step in the latent: pull back, momentum, sign."""

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting


def pull_back(image: Tensor, latents: Tensor, image_gradient: Tensor, *, retain_graph: bool = False) -> Tensor:
    r"""Return the latent gradient of an image gradient, :math:`J^\top g` with :math:`J = \partial x / \partial z`.

    Shapes ``(B, 3, H, W), (B, c, h, w), (B, 3, H, W) -> (B, c, h, w)``. One vector-Jacobian product through decoder and
    UNet, whatever the number of models: for given weights :math:`J^\top \sum_m w_m g_m = \sum_m w_m J^\top g_m`. The
    image is that of ``latents``, its graph kept; ``retain_graph`` keeps it for the other terms' gradient.

    Raises:
        InvalidSetting: for an image gradient of another shape than the image's.

    >>> latents = torch.ones(1, 1, 1, 1, requires_grad=True)
    >>> pull_back(3 * latents.expand(1, 3, 1, 1), latents, torch.ones(1, 3, 1, 1)).item()
    9.0
    """
    if image_gradient.shape != image.shape:
        raise InvalidSetting(
            "image_gradient", f"have the shape of the image, {tuple(image.shape)}", tuple(image_gradient.shape)
        )
    return torch.autograd.grad(image, latents, image_gradient, retain_graph=retain_graph)[0]


def momentum_step(momentum: Tensor, gradient: Tensor, *, decay: float = 0.9, clip: float = 1.0) -> Tensor:
    r"""Return the momentum after one more gradient, its norm clipped per image.

    .. math:: m_b \leftarrow \mu m_b + g_b, \qquad m_b \leftarrow m_b \min(1, \mathrm{clip} / \|m_b\|)

    Shapes ``(B, c, h, w), (B, c, h, w) -> (B, c, h, w)``. It lives in the latent, and :func:`sign_step` steps along it.
    With unit gradients and no clip its length grows to ``1/(1 - decay)``.

    Paper: Dong et al., "Boosting Adversarial Attacks with Momentum" (2017, arXiv:1710.06081), here with the norm
    clipped in place of the gradient's 1-norm divided out.

    Raises:
        InvalidSetting: for a decay outside [0, 1), for a clip that is not above 0.

    >>> momentum_step(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1), clip=5.0).flatten()
    tensor([1.9000])
    >>> momentum_step(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1)).item()
    1.0
    """
    if not 0 <= decay < 1:
        raise InvalidSetting("decay", "be in [0, 1)", decay)
    if not clip > 0:
        raise InvalidSetting("clip", "be above 0", clip, "Infinity clips nothing.")
    grown = decay * momentum + gradient
    length = grown.flatten(1).norm(dim=1).clamp(min=torch.finfo(grown.dtype).tiny)
    clipped: Tensor = grown * (clip / length).clamp(max=1)[:, None, None, None]
    return clipped


def sign_step(latents: Tensor, momentum: Tensor, *, size: float) -> Tensor:
    r"""Return the latents one step down, :math:`z - \eta\, \mathrm{sign}(m)`; ``(B, c, h, w)`` unchanged.

    >>> sign_step(torch.zeros(1, 1, 1, 2), torch.tensor([[[[3.0, -0.1]]]]), size=0.5).flatten()
    tensor([-0.5000,  0.5000])
    """
    return latents - size * momentum.sign()
