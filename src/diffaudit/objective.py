"""The objective: named terms and a weighting, from a candidate to the value that the loop descends."""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.terms.base import BatchTerm, ParameterTerm, Term
from diffaudit.weighting.base import Weighting, require_bounded, require_names
from diffaudit.weighting.scale import Scale, ScaleKind


@dataclass(frozen=True, eq=False, kw_only=True)
class Entry:
    """A term in an objective.

    Attributes:
        name: What logs and reports call it, such as ``cls_topk``; a Python identifier, once in an objective.
        group: What the weighting calls its group, such as ``cls``.
        term: The term itself.
        factor: Its factor inside the group, above 0.
        scale: What its values are divided by before that: see :class:`~diffaudit.weighting.scale.Scale`.
        rows: Of how many images each has a scale of its own; None: the batch shares one.
    """

    name: str
    group: str
    term: Term | BatchTerm | ParameterTerm
    factor: float = 1.0
    scale: ScaleKind = "none"
    rows: int | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """What an objective makes of a candidate.

    Attributes:
        value: ``(B,)`` weighted, with gradient.
        parts: ``(B,)`` for each term by name: unweighted, without its scale and factor, detached.
        terms: The same values with gradient, for those who ask where each term pulls.
        groups: ``(B,)`` for each group by name: its terms by scale and factor, unweighted, with gradient, for
            weightings of gradients.
    """

    value: Tensor
    parts: dict[str, Tensor]
    terms: dict[str, Tensor] = field(repr=False)
    groups: dict[str, Tensor] = field(repr=False)


class Objective(nn.Module):
    r"""Weighted terms: ``candidate, step -> Scored(value (B,), parts {name: (B,)})``.

    The loss of a group is the sum of its terms times their factors, each over its scale, and the weighting combines
    the groups:

    .. math:: L_b = W\Big(\Big\{g: \sum_{i \in g} a_i L_{i,b} / s_i\Big\}, n\Big)

    Each term is evaluated once. A group whose weight at this step is exactly 0 is evaluated without gradient: it is
    reported and costs no backward pass. A ``ParameterTerm`` counts once for each image, so that the mean over the
    batch is the term itself.

    Raises:
        InvalidSetting: for no entries, a name that is no identifier or comes twice, a factor that is not above 0, a
            weighting for other groups than the entries', a term without lower bound in a group whose weight is
            learned, an unknown scale; in ``forward``, for a term that returns anything but one value per image.

    >>> from diffaudit.terms import TopK
    >>> from diffaudit.weighting import Fixed
    >>> objective = Objective([Entry(name="cls_topk", group="cls", term=TopK())], Fixed({"cls": 0.5}))
    >>> image = torch.zeros(1, 3, 8, 8)
    >>> candidate = Candidate(image=image, source=image, target=torch.tensor([0]), logits=torch.tensor([[1.0, 5.0]]))
    >>> objective(candidate, step=0)
    Scored(value=tensor([2.]), parts={'cls_topk': tensor([4.])})
    """

    def __init__(self, entries: Sequence[Entry], weighting: Weighting) -> None:
        super().__init__()
        if not entries:
            raise InvalidSetting("entries", "hold at least one term", [])
        names = [entry.name for entry in entries]
        for entry in entries:
            if not entry.name.isidentifier() or names.count(entry.name) > 1:
                raise InvalidSetting("name", "be an identifier that no other term has", entry.name)
            if not (math.isfinite(entry.factor) and entry.factor > 0):
                raise InvalidSetting(
                    f"{entry.name}.factor",
                    "be a finite number above 0",
                    entry.factor,
                    "Leave the term out, or give its group the weight 0 to watch it.",
                )
        require_names(weighting.weights(0), (entry.group for entry in entries))
        require_bounded(
            weighting.learned_groups(), {entry.name: (entry.group, entry.term.lower_bound) for entry in entries}
        )
        self.terms = nn.ModuleDict({entry.name: entry.term for entry in entries})
        scaled = [entry for entry in entries if entry.scale != "none"]
        self.scales = nn.ModuleDict({entry.name: Scale(entry.scale, entry.rows) for entry in scaled})
        self.weighting = weighting
        self._places = {entry.name: (entry.group, entry.factor) for entry in entries}

    def forward(self, candidate: Candidate, step: int, shares: Mapping[str, float] | None = None) -> Scored:
        """The value of ``candidate`` at ``step``; ``shares`` multiply groups by name before the weighting sees them.

        A weight that is learned on its loss undoes a share of it: settings refuse the two together.
        """
        weights = self.weighting.weights(step)
        groups: dict[str, Tensor] = {}
        terms: dict[str, Tensor] = {}
        for name, term in self.terms.items():
            group, factor = self._places[name]
            with torch.no_grad() if weights[group] == 0 else nullcontext():
                value = _per_image(name, term, candidate)
                scaled = self.scales[name](value) if name in self.scales else value
                groups[group] = groups[group] + factor * scaled if group in groups else factor * scaled
            terms[name] = value
        for group, share in (shares or {}).items():
            if group in groups:
                groups[group] = share * groups[group]
        parts = {name: value.detach() for name, value in terms.items()}
        return Scored(self.weighting(groups, step), parts, terms, groups)


def _per_image(name: str, term: nn.Module, candidate: Candidate) -> Tensor:
    """Values ``(B,)`` of a term, refused where it reduced over the batch: the sum would broadcast it in silence."""
    images = len(candidate.image)
    wanted: tuple[int, ...] = () if isinstance(term, ParameterTerm) else (images,)
    value: Tensor = term() if isinstance(term, ParameterTerm) else term(candidate)
    if value.shape != wanted:
        raise InvalidSetting(name, f"return values of shape {wanted}", tuple(value.shape))
    return value.expand(images)
