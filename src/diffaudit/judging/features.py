"""Features: is an image near the private images of its class, as an encoder the attack never saw sees them?"""

from __future__ import annotations

import torch
from torch import Tensor

from diffaudit.judging._checks import require_labels, require_rows


def unit_embeddings(embeddings: Tensor) -> Tensor:
    r"""Return each embedding divided by its Euclidean norm.

    Shapes ``(B, D) -> (B, D)``.

    Raises:
        ValueError: for an embedding of zeros, which has no direction, and for numbers that are not finite.

    >>> import torch
    >>> unit_embeddings(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    require_rows("embeddings", embeddings)
    norms: Tensor = torch.linalg.vector_norm(embeddings, dim=1, keepdim=True)
    if (norms == 0).any():
        raise ValueError(
            f"`embeddings` should have a direction each. Found {(norms == 0).sum().item()} of length 0. "
            "Check the encoder and the images it was given."
        )
    return embeddings / norms


def class_means(embeddings: Tensor, embedding_labels: Tensor, labels: Tensor) -> Tensor:
    r"""Return, for each label asked for, the direction of the mean unit embedding of its class.

    .. math:: \frac{\sum_{n : y_n = y_b} e_n}{\left\|\sum_{n : y_n = y_b} e_n\right\|}

    Shapes ``(N, D), (N,), (B,) -> (B, D)``, unit vectors.

    Raises:
        ValueError: for a label without embeddings, and for a class whose embeddings cancel out.

    >>> import torch
    >>> class_means(torch.eye(3), torch.tensor([7, 7, 2]), torch.tensor([2, 7]))
    tensor([[0.0000, 0.0000, 1.0000],
            [0.7071, 0.7071, 0.0000]])
    """
    require_labels("embedding_labels", embedding_labels, len(embeddings))
    require_labels("labels", labels, labels.numel())
    members = labels[:, None] == embedding_labels
    _require_members(members, labels, 1)
    return unit_embeddings(members.to(embeddings.dtype) @ unit_embeddings(embeddings))


def identity_cosine(embeddings: Tensor, anchors: Tensor) -> Tensor:
    r"""Return the cosine between each image's embedding and its anchor, such as its class's mean (:func:`class_means`).

    Shapes ``(B, D), (B, D) -> (B,)``, range [-1, 1]; higher is nearer.

    Paper: Deng, Guo, Xue, Zafeiriou, "ArcFace: Additive Angular Margin Loss for Deep Face Recognition" (2018,
    arXiv:1801.07698), for embeddings in which this angle is identity.

    Raises:
        ValueError: for shapes that differ, for numbers that are not finite and for vectors of length 0.

    >>> import torch
    >>> identity_cosine(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    tensor([1., 0.])
    """
    if embeddings.shape != anchors.shape:
        raise ValueError(
            "`anchors` should have one row per embedding, as long as it. "
            f"Found shapes {tuple(anchors.shape)} and {tuple(embeddings.shape)}. `class_means` gives such rows."
        )
    return (unit_embeddings(embeddings) * unit_embeddings(anchors)).sum(dim=1).clamp(-1, 1)


def neighbour_distance(
    features: Tensor, labels: Tensor, references: Tensor, reference_labels: Tensor, *, k: int = 1
) -> Tensor:
    r"""Return the mean Euclidean distance from each image to its ``k`` nearest references of the same class.

    Shapes ``(B, D), (B,), (N, D), (N,) -> (B,)``, range [0, inf), in the features' own units; lower is nearer. With
    ``k = 1`` it is the "KNN distance" of the model-inversion literature.

    Paper: Zhang, Jia, Pei, Wang, Li, Song, "The Secret Revealer: Generative Model-Inversion Attacks Against Deep
    Neural Networks" (2019, arXiv:1911.07135).

    Raises:
        ValueError: for a label with fewer than ``k`` references, and for numbers that are not finite.

    >>> import torch
    >>> references = torch.tensor([[0.0, 0.0], [3.0, 4.0], [1.0, 0.0]])
    >>> neighbour_distance(torch.zeros(1, 2), torch.tensor([5]), references, torch.tensor([8, 5, 5]))
    tensor([1.])
    """
    require_rows("features", features)
    require_rows("references", references, columns=features.shape[1])
    require_labels("labels", labels, len(features))
    require_labels("reference_labels", reference_labels, len(references))
    if k < 1:
        raise ValueError(f"`k` should be a positive integer. Found {k}.")
    members = labels[:, None] == reference_labels
    _require_members(members, labels, k)
    distances = euclidean_distances(features, references)
    return distances.masked_fill(~members, torch.inf).topk(k, dim=1, largest=False).values.mean(dim=1)


def euclidean_distances(rows: Tensor, columns: Tensor) -> Tensor:
    """Return the Euclidean distance of every row to every column.

    Shapes ``(B, D), (N, D) -> (B, N)``, range [0, inf), at least float32. Taken from differences rather than from a
    matrix product, so that equal vectors are at distance 0 exactly.

    >>> import torch
    >>> euclidean_distances(torch.zeros(1, 2), torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    tensor([[5., 0.]])
    """
    dtype = torch.promote_types(rows.dtype, torch.float32)
    return torch.cdist(rows.to(dtype), columns.to(dtype), compute_mode="donot_use_mm_for_euclid_dist")


def _require_members(members: Tensor, labels: Tensor, least: int) -> None:
    """Refuse a label, a row of ``members (B, N)``, with fewer than ``least`` references."""
    found = members.sum(dim=1)
    short = found < least
    if short.any():
        raise ValueError(
            f"Every class in `labels` should have at least {least} reference images. Found {found[short][0].item()} "
            f"for class {labels[short][0].item()}. Add private images of that class, or leave it out."
        )
