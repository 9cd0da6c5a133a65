"""Success: does a classifier see the class sought?"""

from __future__ import annotations

import torch
from torch import Tensor

from diffaudit.judging._checks import require_finite, require_labels, require_rows


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


def mean_vote(successes: Tensor) -> Tensor:
    r"""Return the share of judges that see the class sought, per image.

    Shapes ``(M, B) -> (B,)``, boolean to a float in [0, 1]; every judge has one vote. The mean over images is the mean
    of the judges' accuracies.

    Raises:
        ValueError: for votes that are not boolean, and for no judge at all.

    >>> import torch
    >>> mean_vote(torch.tensor([[True, True], [True, False]]))
    tensor([1.0000, 0.5000])
    """
    if successes.ndim != 2 or len(successes) == 0 or successes.dtype != torch.bool:
        raise ValueError(
            "`successes` should be boolean, one row per judge and one column per image. "
            f"Found shape {tuple(successes.shape)} of {successes.dtype}. `topk_success` gives such rows."
        )
    return successes.float().mean(dim=0)


def overfit_gap(target: Tensor, judges: Tensor) -> Tensor:
    r"""Return the target's success minus the judges' vote, per image.

    Shapes ``(B,), (B,) -> (B,)``, range [-1, 1]. Its mean is target minus judge accuracy: far above 0 the images fool
    the model they were made with rather than show the class.

    Raises:
        ValueError: for columns of different shape or with a number that is not finite.

    >>> import torch
    >>> overfit_gap(torch.tensor([True, True]), torch.tensor([1.0, 0.5]))
    tensor([0.0000, 0.5000])
    """
    if target.shape != judges.shape or target.ndim != 1:
        raise ValueError(
            "`target` and `judges` should be one column each, of one length. "
            f"Found shapes {tuple(target.shape)} and {tuple(judges.shape)}."
        )
    require_finite("target", target)
    require_finite("judges", judges)
    return target.float() - judges.float()
