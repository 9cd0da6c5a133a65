"""Gradient steps on finished pixels: what they would add to an attack's figures, shown for what they are."""

import torch
from torch import Tensor

from diffaudit.eight_bit import to_bytes
from diffaudit.models.classifier import Classifier


def adversarial_pixels(classifier: Classifier, images: Tensor, labels: Tensor, *, steps: int, rate: float) -> Tensor:
    r"""Images moved by ``steps`` of Adam on their pixels to raise :math:`\log p(y_b | x_b)` under the classifier.

    Shapes ``(B, 3, H, W) uint8, (B,) -> (B, 3, H, W) uint8``; pixels stay in [0, 1] after every step and are rounded
    to 8 bits at the end. Each image is moved by its own gradient alone, whatever batch it comes in. What comes out are
    adversarial examples of the classifier, not reconstructions: the class is in the perturbation, not in the picture.

    Papers: Szegedy et al., "Intriguing properties of neural networks" (2013, arXiv:1312.6199), for images optimised
    toward a class; Kingma, Ba, "Adam: A Method for Stochastic Optimization" (2014, arXiv:1412.6980), for the step.
    """
    pixels = (images.float() / 255).requires_grad_()
    optimiser = torch.optim.Adam([pixels], lr=rate)
    for _ in range(steps):
        sought = classifier.logits(pixels).log_softmax(1).gather(1, labels[:, None])
        (pixels.grad,) = torch.autograd.grad(-sought.sum(), pixels)
        optimiser.step()
        with torch.no_grad():
            pixels.clamp_(0, 1)
    return to_bytes(pixels)
