"""Success: does a classifier see the class sought?"""

from __future__ import annotations

from torch import Tensor

from diffaudit.judging._checks import require_labels, require_rows


def topk_success(logits: Tensor, labels: Tensor, *, k: int = 1) -> Tensor:
    r"""Return whether fewer than ``k`` other classes have a logit at least as large as the label's, per image.

    .. math:: \left|\{j \ne y : l_j \ge l_y\}\right| < k

    Shapes ``(B, C), (B,) -> (B,)``, boolean. A tie counts against success, so that a classifier which answers the same
    for every class has success 0, not 1. The mean over images is the top-k accuracy.

    Raises:
        ValueError: for logits that are not finite, labels that name no column, ``k`` outside [1, C].

    >>> import torch
    >>> topk_success(torch.tensor([[0.0, 2.0, 1.0], [1.0, 1.0, 0.0]]), torch.tensor([1, 0]))
    tensor([ True, False])
    """
    require_rows("logits", logits)
    require_labels("labels", labels, len(logits))
    classes = logits.shape[1]
    if not 1 <= k <= classes:
        raise ValueError(f"`k` should be between 1 and the number of classes, {classes}. Found {k}.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`labels` should lie between 0 and {classes - 1}, the columns of `logits`. "
            f"Found {labels.min().item()} to {labels.max().item()}. Check the order of the classes."
        )
    own = logits.gather(1, labels[:, None].long())
    return (logits >= own).sum(dim=1) <= k
