"""What a loop knows about a batch of images, shared by all terms and read-only to them."""

from dataclasses import dataclass

from torch import Tensor

from diffaudit.attention import AttentionView


@dataclass(frozen=True, eq=False, kw_only=True)
class Candidate:
    """``B`` candidate images and what has been computed from them once, for every term.

    Attributes:
        image: ``(B, 3, H, W)`` about [0, 1], with gradient: the images under attack.
        source: ``(B, 3, H, W)`` in [0, 1]: the public images that they started from.
        target: ``(B,)`` integer class sought.
        logits: ``(B, C)`` of the target classifier on ``image``.
        features: ``(B, P)`` its penultimate features; None where the model does not show them.
        embedding: ``(B, D)`` unit identity embedding of ``image``; None where no term asked for it.
        anchor: ``(B, D)`` unit vector that the identity term pulls toward, detached.
        noise: ``(B, c, h, w)`` noise of the prior's own draw, which is another picture than ``image``.
        prediction: ``(B, c, h, w)`` the prior's prediction of ``noise``, with gradient.
        progress: ``(B,)`` in [0, 1], 0 at pure noise, of the same draw.
        negatives: ``(B, N, D)`` unit identity embeddings of other classes, each image's own; None without a bank.
        negatives_present: ``(B, N)`` boolean, False where an image has fewer than ``N``; None: all are present.
        attention: what the prior attends to in ``image``'s latent and in the clean one; None where nothing is recorded.
        mask: ``(B, 1, h, w)`` in [0, 1], of any side: where a perturbation may act; None: everywhere.
    """

    image: Tensor
    source: Tensor
    target: Tensor
    logits: Tensor
    features: Tensor | None = None
    embedding: Tensor | None = None
    anchor: Tensor | None = None
    noise: Tensor | None = None
    prediction: Tensor | None = None
    progress: Tensor | None = None
    negatives: Tensor | None = None
    negatives_present: Tensor | None = None
    attention: AttentionView | None = None
    mask: Tensor | None = None
