"""Which of the candidates are kept: those that the target stays sure of when they are looked at differently."""

import torch
from torch import Tensor

from diffaudit.models.classifier import Classifier


def random_view(images: Tensor, generator: torch.Generator) -> Tensor:
    """One random view for the whole batch: mirrored or not, moved by up to 1/16, gain and offset changed."""
    draw: list[float] = torch.rand(5, generator=generator).tolist()
    reach = max(1, images.shape[-1] // 16)
    shifts = [round((2 * value - 1) * reach) for value in draw[1:3]]
    view = images.flip(-1) if draw[0] < 0.5 else images
    padded: Tensor = torch.nn.functional.pad(view, [reach] * 4, mode="replicate")
    top, left = reach + shifts[0], reach + shifts[1]
    moved = padded[..., top : top + images.shape[-2], left : left + images.shape[-1]]
    return (moved * (0.9 + 0.2 * draw[3]) + 0.1 * (draw[4] - 0.5)).clamp(0, 1)


@torch.no_grad()
def robust_log_probability(
    classifier: Classifier, images: Tensor, target: Tensor, *, views: int, generator: torch.Generator
) -> Tensor:
    """``(B,)`` mean log-probability of ``target (B,)`` over ``views`` random views, which all images share."""
    scores = [
        classifier.logits(random_view(images, generator)).log_softmax(1).gather(1, target[:, None])[:, 0]
        for _ in range(views)
    ]
    return torch.stack(scores).mean(0)


def keep_best(scores: Tensor, keep: int) -> Tensor:
    """``(n, candidates) -> (n, keep)``: columns of the highest scores, best first; ties go to the earlier candidate.

    >>> keep_best(torch.tensor([[0.1, 0.9, 0.5, 0.9]]), 2)
    tensor([[1, 3]])
    """
    return scores.argsort(dim=1, descending=True, stable=True)[:, :keep]
