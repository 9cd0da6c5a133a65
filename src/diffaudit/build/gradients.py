"""Whether a model can be followed: an attack goes along its gradient, and one that has none would look robust."""

from collections.abc import Callable

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting


def require_gradient(name: str, look: Callable[[Tensor], Tensor], images: Tensor) -> None:
    """Refuses a model whose answer to ``images (B, 3, H, W)`` has no finite gradient there.

    ``name`` is the key that a message names.

    Raises:
        InvalidSetting: the answer was made without a graph, does not hang on the images, or its gradient is not finite.
    """
    start = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        answer = look(start)
        if not answer.requires_grad:
            raise InvalidSetting(
                name,
                "answer with a gradient, which the attack follows",
                "an answer without one",
                "Take `torch.no_grad`, `detach` and rounding out of its forward pass.",
            )
        (gradient,) = torch.autograd.grad(answer.square().sum(), start, allow_unused=True)
    if gradient is None or not bool(gradient.isfinite().all()):
        found = "an answer that does not hang on the images" if gradient is None else "a gradient that is not finite"
        raise InvalidSetting(name, "answer with a finite gradient, which the attack follows", found)
