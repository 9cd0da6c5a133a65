"""The judges: models that no loop ever saw, and the private pictures. Images go in, records come out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, ThreatModelViolation
from diffaudit.judging.diversity import embedding_variance, factor_error, pairwise_distance
from diffaudit.judging.features import (
    class_means,
    euclidean_distances,
    identity_cosine,
    neighbour_distance,
    unit_embeddings,
)
from diffaudit.judging.parts import in_parts
from diffaudit.judging.success import topk_success
from diffaudit.models.attributes import AttributeEstimator
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures, perceptual_distance, unit_channels
from diffaudit.records import JudgeVote, Record


@dataclass(frozen=True, eq=False)
class PrivatePictures:
    """Held-out private ``images (N, 3, H, W) uint8`` with ``labels (N,)``; ``factors (C, F)`` of every class if known.

    ``factor_spread (F,)`` is the public standard deviation of the factors, the unit of their error.
    """

    images: Tensor
    labels: Tensor
    factors: Tensor | None = None
    factor_spread: Tensor | None = None

    def of(self, classes: Tensor) -> "PrivatePictures":
        """The pictures of these classes, class by class."""
        rows = torch.cat([(self.labels == label).nonzero()[:, 0] for label in classes])
        return PrivatePictures(self.images[rows], self.labels[rows], self.factors, self.factor_spread)


@dataclass(frozen=True, eq=False)
class Instruments:
    """Public measuring devices that are no secret: the target itself, perceptual features and attributes."""

    target: Classifier
    perceptual: PerceptualFeatures
    attributes: AttributeEstimator | None


@dataclass(frozen=True, eq=False)
class Judged:
    """Images handed to the judges: ``images (B, 3, H, W) uint8``, ``labels (B,)`` sought, sources, their pictures."""

    row: str
    images: Tensor
    labels: Tensor
    sources: Tensor | None
    source_images: Tensor | None


class Judge:
    """Independent classifiers, an independent identity encoder, a factor estimator and the private pictures.

    ``private_embeddings (N, D)`` are the encoder's, of the private pictures.

    Raises:
        ThreatModelViolation: a judge is the target, shares its file, or was trained from its weights.
    """

    def __init__(
        self,
        classifiers: Mapping[str, Classifier],
        encoder: IdentityEncoder,
        private: PrivatePictures,
        *,
        instruments: Instruments,
        factors: nn.Module | None = None,
    ) -> None:
        for name, classifier in classifiers.items():
            refuse_dependent(name, classifier, instruments.target)
        self.classifiers = dict(classifiers)
        self.encoder = encoder
        self.private = private
        self.factors = factors
        self._instruments = instruments
        self.private_embeddings = self.embed(private.images)

    @torch.no_grad()
    def embed(self, images: Tensor, *, batch: int = 128) -> Tensor:
        """``(B, D)`` unit embeddings of byte ``images (B, 3, H, W)`` under the judges' identity encoder."""
        return in_parts(self.encoder, batch, images)

    @torch.no_grad()
    def records(self, judged: Judged, *, embeddings: Tensor | None = None, batch: int = 128) -> list[Record]:
        """One record per image, in order; ``embeddings`` are those of :meth:`embed`, where they are known already."""
        if len(judged.images) == 0:
            raise InvalidSetting("images", "hold at least one image to judge", 0)
        pictures = judged.images.float() / 255
        labels = judged.labels
        target = in_parts(self._instruments.target.logits, batch, pictures)
        votes = {
            name: _votes(in_parts(judge.logits, batch, pictures), labels) for name, judge in self.classifiers.items()
        }
        embeddings = self.embed(judged.images, batch=batch) if embeddings is None else embeddings
        cosine, nearest = self._likeness(judged, embeddings)
        diversity = self._diversity(pictures, labels, batch)
        variance = None if diversity is None else embedding_variance(embeddings, labels)
        perceptual, attributes = self._distances_to_source(pictures, judged.source_images, batch)
        factors = self._factor_errors(pictures, labels, batch)
        own = target.log_softmax(1).gather(1, labels[:, None])[:, 0]
        target_hit = topk_success(target, labels)
        numbers = _numbers_within(labels)
        return [
            Record(
                row=judged.row,
                label=int(labels[i]),
                sample=numbers[i],
                source=None if judged.sources is None else int(judged.sources[i]),
                image=f"images/{judged.row}/{int(labels[i]):04d}-{numbers[i]:02d}.png",
                source_image=None if judged.sources is None else f"images/source/{int(judged.sources[i]):05d}.png",
                target_hit=bool(target_hit[i]),
                target_log_probability=float(own[i]),
                judges={name: given[i] for name, given in votes.items()},
                identity_cosine=float(cosine[i]),
                knn_distance=float(nearest[i]),
                diversity=None if diversity is None else float(diversity[i]),
                embedding_variance=None if variance is None else float(variance[i]),
                perceptual_distance=None if perceptual is None else float(perceptual[i]),
                attribute_error=None if attributes is None else {n: float(v[i]) for n, v in attributes.items()},
                factor_error=None if factors is None else float(factors[i]),
            )
            for i in range(len(labels))
        ]

    def _likeness(self, judged: Judged, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """``(B,)`` cosine with the class's mean private embedding, and ``(B,)`` distance to its nearest one.

        A private picture, of row `upper`, is compared with the other ones of its person.
        """
        if judged.row != "upper":
            private, theirs = self.private_embeddings, self.private.labels
            nearest = neighbour_distance(embeddings, judged.labels, private, theirs)
            return identity_cosine(embeddings, class_means(private, theirs, judged.labels)), nearest
        mates = self._mates(judged)
        means = unit_embeddings(mates.to(embeddings) @ self.private_embeddings)
        distances = euclidean_distances(embeddings, self.private_embeddings)
        return identity_cosine(embeddings, means), distances.masked_fill(~mates, torch.inf).amin(1)

    def _mates(self, judged: Judged) -> Tensor:
        """``(B, N)``: which private pictures are *other* ones of the same person; copies of a picture are no others."""
        other = _marks(judged.images)[:, None] != _marks(self.private.images)
        mates = (judged.labels[:, None] == self.private.labels) & other
        alone = judged.labels[~mates.any(1)].unique().tolist()
        if alone:
            raise InvalidSetting(
                "judging.private",
                "show every person in two different pictures or more",
                f"one of class {', '.join(map(str, alone[:5]))}",
                "Add pictures, or set `reference_rows` to false.",
            )
        return mates

    def _diversity(self, pictures: Tensor, labels: Tensor, batch: int) -> Tensor | None:
        if int(labels.unique(return_counts=True)[1].min()) < 2:
            return None
        flat = in_parts(self._looks, batch, pictures)
        return pairwise_distance(flat, labels, lambda a, b: (a - b).square().sum(1))

    def _looks(self, pictures: Tensor) -> Tensor:
        """A vector an image, whose squared distances are the perceptual distance: layers are scaled by their size."""
        maps = unit_channels(self._instruments.perceptual(pictures))
        return torch.cat([layer.flatten(1) / (layer.shape[2] * layer.shape[3]) ** 0.5 for layer in maps], dim=1)

    def _distances_to_source(
        self, pictures: Tensor, sources: Tensor | None, batch: int
    ) -> tuple[Tensor | None, dict[str, Tensor] | None]:
        if sources is None:
            return None, None
        perceptual, attributes = self._instruments.perceptual, self._instruments.attributes
        distances = in_parts(partial(perceptual_distance, perceptual), batch, pictures, sources)
        if attributes is None:
            return distances, None
        errors = []
        for some, source in zip(pictures.split(batch), sources.split(batch), strict=True):
            found, wanted = attributes(some), attributes(source.float() / 255)
            errors.append({name: (found[name] - wanted[name]).abs().mean(1) for name in found})
        return distances, {name: torch.cat([part[name] for part in errors]) for name in errors[0]}

    def _factor_errors(self, pictures: Tensor, labels: Tensor, batch: int) -> Tensor | None:
        if self.factors is None or self.private.factors is None or self.private.factor_spread is None:
            return None
        found = in_parts(self.factors, batch, pictures)
        return factor_error(found, self.private.factors[labels], self.private.factor_spread)


def refuse_dependent(name: str, judge: Classifier, target: Classifier, *, whose: str = "the target") -> None:
    """Refuses a judge that is the target, shares its weight file, or was trained from its weights.

    ``whose`` names the target in the message. Two networks trained apart have weights that do not correlate; one
    fine-tuned from the other keeps most of them, so matching matrices and kernels of more than 1,000 entries whose
    cosine is above 0.5 on average give it away. The gains of norm layers are left out: they stay near 1 in every
    network.
    """
    if judge is target or judge.model is target.model:
        raise ThreatModelViolation(f"The judge `{name}` is {whose} itself. Judge with another model.")
    if judge.fingerprint == target.fingerprint:
        raise ThreatModelViolation(
            f"The judge `{name}` has {whose}'s weight file (SHA-256 {judge.fingerprint[:12]}). Use another judge."
        )
    mine, theirs = dict(judge.model.named_parameters()), dict(target.model.named_parameters())
    shared = [
        key
        for key in mine
        if key in theirs and mine[key].shape == theirs[key].shape and mine[key].ndim > 1 and mine[key].numel() > 1000
    ]
    if not shared:
        return
    cosines = [float(nn.functional.cosine_similarity(mine[k].flatten(), theirs[k].flatten(), dim=0)) for k in shared]
    if sum(cosines) / len(cosines) > 0.5:
        raise ThreatModelViolation(
            f"The judge `{name}` seems to be trained from {whose}'s weights (mean cosine of {len(shared)} shared "
            f"tensors {sum(cosines) / len(cosines):.2f}). Judge with a model of its own training."
        )


def _votes(logits: Tensor, labels: Tensor) -> list[JudgeVote]:
    first, five = (topk_success(logits, labels, k=min(k, logits.shape[1])) for k in (1, 5))
    answers = zip(logits.argmax(1).tolist(), first.tolist(), five.tolist(), strict=True)
    return [JudgeVote(predicted=predicted, hit=hit, top5=top5) for predicted, hit, top5 in answers]


def _marks(images: Tensor) -> Tensor:
    """``(B,)`` integers, equal for byte images that are equal."""
    return torch.tensor([hash(image.numpy().tobytes()) for image in images])


def _numbers_within(labels: Tensor) -> list[int]:
    seen: dict[int, int] = {}
    numbers = []
    for label in labels.tolist():
        numbers.append(seen.get(label, 0))
        seen[label] = numbers[-1] + 1
    return numbers
