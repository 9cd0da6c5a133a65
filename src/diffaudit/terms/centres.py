"""Centre terms: do the candidate's penultimate features look like those of its class?"""

import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms._checks import require_matrix, require_rows, required
from diffaudit.terms.base import Term


def feature_distance(features: Tensor, centres: Tensor) -> Tensor:
    r"""Return the squared distance of each image's features to its centre, divided by their dimension.

    .. math:: \frac{1}{P} \left\|p_b - c_b\right\|^2

    Shapes ``(B, P), (B, P) -> (B,)``, one centre per image; range ``[0, inf)``.

    Paper: Wen, Zhang, Li, Qiao, "A Discriminative Feature Learning Approach for Deep Face Recognition" (ECCV 2016),
    the centre loss, here with given centres.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> feature_distance(torch.tensor([[3.0, 4.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]]))
    tensor([12.5000,  0.0000])
    """
    require_rows("features", features, centres, "centres")
    return (features - centres).square().mean(1)


def centre_travel(centres: Tensor, start: Tensor) -> Tensor | None:
    r"""Return how far each centre is from where it began, in units of the centres' spread there.

    .. math:: \|c_y - c_y^0\| \Big/ \sqrt{\tfrac{1}{n} \sum_j \|c_j^0 - \bar c^0\|^2}

    Shapes ``(n, P), (n, P) -> (n,)``; range ``[0, inf)``; None where all begin at the same place, as a single one does:
    there is no unit then. From 1 on a centre is as far from its class as the classes are from one another: it has
    walked to the features, and the term that pulls to it says nothing.

    Raises:
        InvalidSetting: for shapes that differ.

    >>> import torch
    >>> centre_travel(torch.tensor([[1.0, 1.0], [-1.0, 0.0]]), torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    tensor([1., 0.])
    """
    if centres.shape != start.shape or start.ndim != 2:
        raise InvalidSetting("centres", f"have the shape of `start`, {tuple(start.shape)}", tuple(centres.shape))
    spread = (start - start.mean(0)).square().sum(1).mean().sqrt()
    distances: Tensor = torch.linalg.vector_norm(centres - start, dim=1)
    return distances / spread if bool(spread > 0) else None


def row_centres(rows: Tensor, means: Tensor) -> Tensor:
    r"""Return the classes' rows of the last layer as centres: their directions, as long as mean features are.

    .. math:: c_y = \frac{w_y}{\|w_y\|} \cdot \frac{1}{n} \sum_j \|m_j\|

    Shapes ``(C, P), (n, P) -> (C, P)``. A row says which way the class lies and not how far: by itself it may be a
    hundred times shorter than any feature, and a distance to it would only ask for small features.

    Raises:
        InvalidSetting: for another dimension of rows and means.

    >>> import torch
    >>> row_centres(torch.tensor([[0.0, 0.5], [2.0, 0.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
    tensor([[0., 3.],
            [3., 0.]])
    """
    if rows.ndim != 2 or means.ndim != 2 or rows.shape[1] != means.shape[1]:
        raise InvalidSetting("rows", f"have the dimension of the features, {means.shape[-1]}", tuple(rows.shape))
    centres: Tensor = nn.functional.normalize(rows, dim=1) * torch.linalg.vector_norm(means, dim=1).mean()
    return centres


class FeatureCentre(Term):
    """:func:`feature_distance` of ``candidate.features`` to the centre of the target's class.

    The centres ``(C, P)``, rows by class index, are a buffer: they move with the term, are saved with it and never
    learn.

    Raises:
        InvalidSetting: for centres that are no matrix at once; in ``forward``, for a classifier that shows no features,
            features of another dimension or another number of classes.
    """

    lower_bound = 0.0
    centres: Tensor

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        require_matrix("centres", centres)
        self.register_buffer("centres", centres.detach().clone())

    def forward(self, candidate: Candidate) -> Tensor:
        return _distance_to_own_centre(candidate, self.centres)

    def extra_repr(self) -> str:
        """Return the number and dimension of the centres for the printed objective."""
        return _size(self.centres)


class LearnedCentre(Term):
    """:func:`feature_distance` of ``candidate.features`` to the centre of the target's class, which learns too.

    The centres ``(C, P)``, rows by class index, are parameters that begin at ``start``: the mean features of the public
    pictures that the target scores highest for each class. A centre that begins anywhere and learns at the full rate
    walks to the features, and the term dies; train these at a tenth of the main rate and report their :meth:`travel`.
    A class that is in no batch gets no gradient.

    Paper: Wen, Zhang, Li, Qiao, "A Discriminative Feature Learning Approach for Deep Face Recognition" (ECCV 2016),
    whose centres learn at a rate of their own too.

    Raises:
        InvalidSetting: for a start that is no matrix at once; in ``forward``, for a classifier that shows no features,
            features of another dimension or another number of classes.

    >>> centre = LearnedCentre(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    >>> centre.centres.data[1] += torch.tensor([0.0, 3.0])
    >>> centre.travel(torch.tensor([0, 1]))
    tensor([0., 3.])
    """

    lower_bound = 0.0
    start: Tensor

    def __init__(self, start: Tensor) -> None:
        super().__init__()
        require_matrix("start", start)
        self.register_buffer("start", start.detach().clone())
        self.centres = nn.Parameter(start.detach().clone())

    def forward(self, candidate: Candidate) -> Tensor:
        return _distance_to_own_centre(candidate, self.centres)

    @torch.no_grad()
    def travel(self, classes: Tensor) -> Tensor | None:
        """:func:`centre_travel` of the centres of ``classes (n,)``, those sought: the rows of others say nothing."""
        return centre_travel(self.centres[classes], self.start[classes])

    def extra_repr(self) -> str:
        """Return the number and dimension of the centres for the printed objective."""
        return _size(self.centres)


def _distance_to_own_centre(candidate: Candidate, centres: Tensor) -> Tensor:
    features = required(
        "features",
        candidate.features,
        "The target classifier shows no penultimate features: leave this term out or load the model as a module.",
    )
    classes = candidate.logits.shape[1]
    if len(centres) != classes:
        raise InvalidSetting("centres", f"have one row per class, {classes}", len(centres))
    return feature_distance(features, centres[candidate.target])


def _size(centres: Tensor) -> str:
    classes, dimension = centres.shape
    return f"classes={classes}, dimension={dimension}"
