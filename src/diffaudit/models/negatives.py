"""The bank of negatives: identity embeddings of other classes, for the contrastive identity terms."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting

EMPTY = -1


class Negatives(NamedTuple):
    """``vectors (B, N, D)``, each image's own, and ``present (B, N)``: False where an image has fewer than ``N``."""

    vectors: Tensor
    present: Tensor


class NegativeBank(nn.Module):
    """Unit embeddings with labels, in two parts: snapshots of the label embeddings, and a ring of public pictures.

    Snapshots are what the *other* classes look like now, taken again every ``interval`` steps (:meth:`is_due`,
    :meth:`refresh`). The ring holds the ``capacity`` newest embeddings of public pictures, labelled by the target
    classifier's own guess (:meth:`remember`): an attacker has no training set to fill it from, and no method takes true
    labels. Either part may stay empty. What is stored is detached, of length 1, and part of ``state_dict()``; it
    belongs into checkpoints.

    Paper: He, Fan, Wu, Xie, Girshick, "Momentum Contrast for Unsupervised Visual Representation Learning" (2019,
    arXiv:1911.05722), for a queue of embeddings as negatives.

    Args:
        classes: ``(n,)`` class indices of the label embeddings, in their order.
        dimension: ``D`` of the identity encoder.
        capacity: size of the ring; 0 for a bank of snapshots alone.
        per_image: how many negatives an image gets, where there are as many.
        interval: steps between snapshots; None for a bank of public pictures alone.

    Raises:
        InvalidSetting: for class indices that are not different integers from 0, at least one; for a dimension,
            ``per_image`` or interval below 1 and a capacity below 0.

    >>> bank = NegativeBank(torch.tensor([0, 1]), 2, capacity=8)
    >>> bank.refresh(torch.tensor([[3.0, 0.0], [0.0, 5.0]]))
    >>> bank.draw(torch.tensor([0]), torch.Generator().manual_seed(0)).vectors[0, 0]
    tensor([0., 1.])
    """

    classes: Tensor
    vectors: Tensor
    labels: Tensor
    remembered: Tensor

    def __init__(
        self,
        classes: Tensor,
        dimension: int,
        *,
        capacity: int = 4096,
        per_image: int = 64,
        interval: int | None = 50,
    ) -> None:
        super().__init__()
        if classes.ndim != 1 or classes.is_floating_point() or len(classes) == 0 or int(classes.min()) < 0:
            raise InvalidSetting("classes", "hold integer class indices from 0, at least one", classes.tolist())
        if len(classes.unique()) < len(classes):
            raise InvalidSetting("classes", "name each class once", classes.tolist())
        least = {"dimension": (dimension, 1), "capacity": (capacity, 0), "per_image": (per_image, 1)}
        for name, (value, bound) in least.items():
            if value < bound:
                raise InvalidSetting(name, f"be an integer of at least {bound}", value)
        if interval is not None and interval < 1:
            raise InvalidSetting("interval", "be a positive number of steps, or None", interval)
        self.capacity = capacity
        self.per_image = per_image
        self.interval = interval
        # Snapshots first, the ring after them.
        self.register_buffer("classes", classes.detach().long().clone())
        self.register_buffer("vectors", torch.zeros(len(classes) + capacity, dimension))
        self.register_buffer("labels", torch.full((len(classes) + capacity,), EMPTY))
        self.register_buffer("remembered", torch.zeros((), dtype=torch.long))

    def is_due(self, step: int) -> bool:
        """Whether snapshots are to be taken at ``step``: every ``interval`` steps, and where there are none yet."""
        if self.interval is None:
            return False
        return step % self.interval == 0 or bool(self.labels[0] == EMPTY)

    @torch.no_grad()
    def refresh(self, embeddings: Tensor) -> None:
        """Replace the snapshots by the label embeddings ``(n, D)``, rows in the order of ``classes``.

        Raises:
            InvalidSetting: for another shape.
        """
        count = len(self.classes)
        if embeddings.shape != (count, self.vectors.shape[1]):
            raise InvalidSetting(
                "embeddings", f"have shape {(count, self.vectors.shape[1])}, a row per class", tuple(embeddings.shape)
            )
        self.vectors[:count] = nn.functional.normalize(embeddings.to(self.vectors), dim=1)
        self.labels[:count] = self.classes

    @torch.no_grad()
    def remember(self, embeddings: Tensor, scores: Tensor) -> None:
        """Write public pictures' embeddings ``(N, D)`` into the ring, over the oldest; of too many, the last stay.

        ``scores (N, C)`` are the target classifier's logits or log-probabilities of these pictures; the largest is the
        pseudo-label.

        Raises:
            InvalidSetting: for a bank without a ring, for shapes that do not fit.
        """
        if self.capacity == 0:
            raise InvalidSetting("capacity", "be above 0 for a bank that remembers public pictures", 0)
        if embeddings.ndim != 2 or embeddings.shape[1] != self.vectors.shape[1]:
            raise InvalidSetting("embeddings", f"have shape (N, {self.vectors.shape[1]})", tuple(embeddings.shape))
        if scores.ndim != 2 or len(scores) != len(embeddings):
            raise InvalidSetting("scores", f"have shape ({len(embeddings)}, C)", tuple(scores.shape))
        newest = slice(max(0, len(embeddings) - self.capacity), None)
        numbers = self.remembered + torch.arange(len(embeddings), device=self.labels.device)[newest]
        slots = len(self.classes) + numbers % self.capacity
        self.vectors[slots] = nn.functional.normalize(embeddings[newest].to(self.vectors), dim=1)
        self.labels[slots] = scores[newest].argmax(1).to(self.labels)
        self.remembered += len(embeddings)

    @torch.no_grad()
    def draw(self, target: Tensor, generator: torch.Generator) -> Negatives:
        """Negatives for images that seek the classes ``target (B,)``, none of the image's own class.

        Each image gets ``per_image`` of them without replacement, half of either part; where one part has fewer, the
        other makes up for it, and where both together have fewer, the rest is not ``present``. How many random numbers
        are drawn does not depend on what the bank holds.
        """
        kinds = (slice(None, len(self.classes)), slice(len(self.classes), None))
        shape = (len(target), len(self.labels))
        keys = torch.rand(shape, generator=generator, device=generator.device).to(self.labels.device)
        allowed = (self.labels != EMPTY) & (self.labels != target[:, None].to(self.labels))
        keys = keys.masked_fill(~allowed, -1.0)
        for kind in kinds:
            part = keys[:, kind]  # a view: the best half of it moves ahead of all others
            first = part.topk(min(self.per_image // 2, part.shape[1]), dim=1)
            part.scatter_add_(1, first.indices, (first.values >= 0).to(keys))
        best = keys.topk(min(self.per_image, len(self.labels)), dim=1)
        return Negatives(self.vectors[best.indices], best.values >= 0)

    def extra_repr(self) -> str:
        """Return the sizes for the printed bank."""
        return (
            f"classes={len(self.classes)}, capacity={self.capacity}, per_image={self.per_image}, "
            f"interval={self.interval}"
        )
