"""The judges of adversarial images: surrogates, held-out models and their siblings, plain and behind defences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.judging._checks import require_labels
from diffaudit.judging.defences import Defence
from diffaudit.judging.diversity import euclidean
from diffaudit.judging.image_distances import (
    colour_difference,
    largest_difference,
    signal_to_noise,
    structural_similarity,
)
from diffaudit.judging.judge import refuse_dependent
from diffaudit.judging.parts import in_parts
from diffaudit.judging.success import topk_success
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures, perceptual_distance
from diffaudit.records import PerturbationRecord, picture_path

Role = Literal["surrogate", "heldout", "sibling"]
ROLES: tuple[Role, ...] = ("surrogate", "heldout", "sibling")
"""What the attack had of a model: the model itself, nothing, or nothing but a relative (the same architecture or data
as a surrogate's, so that fooling it says less about transfer)."""


@dataclass(frozen=True, eq=False)
class Perturbed:
    """Adversarial images handed to the judges, as read back from their 8-bit files.

    Attributes:
        row: ``attack``, ``rebuilt`` (nothing was perturbed) or a reference attack's name.
        images: ``(B, 3, H, W)`` uint8.
        clean: the same before the attack.
        labels: ``(B,)`` true classes.
        names: of the pictures, one each.
        numbers: of the pictures within the run, one each.
        goals: ``(B,)`` classes sought; None where any other class will do.
        reconstructions: ``(B, 3, H, W)`` uint8, what DDIM inversion alone gives back; None for attacks on pixels.
        iterations: ``(B,)`` steps taken; None where the attack does not say.
        kept: ``(B,)`` whether each picture still deserves its label; None where no rule can tell.
    """

    row: str
    images: Tensor
    clean: Tensor
    labels: Tensor
    names: Sequence[str]
    numbers: Sequence[int]
    goals: Tensor | None = None
    reconstructions: Tensor | None = None
    iterations: Tensor | None = None
    kept: Tensor | None = None


class PerturbationJudge:
    """Models in their roles, defences, perceptual features and, where there is one, an identity encoder.

    Raises:
        InvalidSetting: no model, a model without a role, or an unknown role.
        ThreatModelViolation: a held-out model is a surrogate, shares its file, or was trained from its weights.
    """

    def __init__(
        self,
        models: Mapping[str, Classifier],
        roles: Mapping[str, Role],
        perceptual: PerceptualFeatures,
        *,
        defences: Sequence[Defence] = (),
        encoder: IdentityEncoder | None = None,
    ) -> None:
        if not models or set(models) != set(roles) or not set(roles.values()) <= set(ROLES):
            raise InvalidSetting("roles", f"name each model once, as one of {', '.join(ROLES)}", dict(roles))
        names = [defence.name for defence in defences]
        if len(set(names)) < len(names):
            raise InvalidSetting("defences", "have a name each", names)
        for name in (name for name, role in roles.items() if role == "heldout"):
            for surrogate in (other for other, role in roles.items() if role == "surrogate"):
                refuse_dependent(name, models[name], models[surrogate], whose=f"the surrogate `{surrogate}`")
        self.models = dict(models)
        self.roles = dict(roles)
        self.defences = tuple(defences)
        self.perceptual = perceptual
        self.encoder = encoder

    @torch.no_grad()
    def records(self, rows: Sequence[Perturbed], *, seed: int, batch: int = 64) -> list[PerturbationRecord]:
        """One record per image, in order, of every row; the clean pictures, which all rows share, are asked once.

        ``seed`` decides what randomised defences draw: a clean picture, and what each row made of it, meet the same
        draw, so that no draw tells rows apart, and a picture that the defence alone spoils counts for nobody.

        Raises:
            InvalidSetting: for images that are not 8-bit pairs, for rows of other pictures than the first one's, for a
                goal that is the label, and for counts that differ.
        """
        _require_one_origin(rows)
        clean, labels = rows[0].clean, rows[0].labels
        right = {
            name: topk_success(in_parts(model.logits, batch, clean), labels) for name, model in self.models.items()
        }
        right_behind = self._behind_defences(clean, lambda logits, at: topk_success(logits, labels[at]), seed, batch)
        return [record for row in rows for record in self._records(row, right, right_behind, seed, batch)]

    def _records(
        self,
        row: Perturbed,
        right: Mapping[str, Tensor],
        right_behind: Mapping[str, Tensor],
        seed: int,
        batch: int,
    ) -> list[PerturbationRecord]:
        labels, goals = row.labels, row.goals

        def won(logits: Tensor, at: Tensor) -> Tensor:
            return fooled(logits.argmax(1), labels[at], None if goals is None else goals[at])

        predicted = {name: in_parts(model.logits, batch, row.images).argmax(1) for name, model in self.models.items()}
        lost = {name: fooled(classes, labels, goals) for name, classes in predicted.items()}
        lost_behind = self._behind_defences(row.images, won, seed, batch)
        defended = {name: _shares(right_behind[name], lost) for name, lost in lost_behind.items()}
        distances = _distances(self.perceptual, row.images, row.clean, batch)
        noise = _finite(in_parts(signal_to_noise, batch, row.images, row.clean))
        rebuilt: list[float | None] = [None] * len(labels)
        if row.reconstructions is not None:
            rebuilt = _finite(in_parts(signal_to_noise, batch, row.reconstructions, row.clean))
        return [
            PerturbationRecord(
                row=row.row,
                image=row.numbers[i],
                name=row.names[i],
                label=int(labels[i]),
                goal=None if goals is None else int(goals[i]),
                picture=picture_path(row.row, row.numbers[i]),
                clean_picture=picture_path("clean", row.numbers[i]),
                clean_hits={name: bool(hits[i]) for name, hits in right.items()},
                predicted={name: int(classes[i]) for name, classes in predicted.items()},
                fooled={name: bool(success[i]) for name, success in lost.items()},
                defended={
                    defence: {name: shares[m][i] for m, name in enumerate(self.models)}
                    for defence, shares in defended.items()
                },
                psnr=noise[i],
                reconstruction_psnr=rebuilt[i],
                iterations=None if row.iterations is None else int(row.iterations[i]),
                label_kept=None if row.kept is None else bool(row.kept[i]),
                **{measure: float(values[i]) for measure, values in distances.items()},
            )
            for i in range(len(labels))
        ]

    @torch.no_grad()
    def embed(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """``(B, D)`` unit embeddings of byte ``images (B, 3, H, W)``.

        Raises:
            InvalidSetting: the judge has no encoder.
        """
        if self.encoder is None:
            raise InvalidSetting("encoder", "be given where images are embedded", None)
        return in_parts(self.encoder, batch, images)

    def _behind_defences(
        self, images: Tensor, judged: Callable[[Tensor, Tensor], Tensor], seed: int, batch: int
    ) -> dict[str, Tensor]:
        """By defence ``(repeats, M, B)`` booleans: what ``judged`` says of the logits of each row of ``images``."""
        generator = torch.Generator().manual_seed(seed)
        rows = torch.arange(len(images)).split(batch)

        def repeat(defence: Defence) -> Tensor:
            shown = ((defence.apply(images[at].float() / 255, generator), at) for at in rows)  # a batch at a time
            votes = [
                torch.stack([judged(model.logits(part), at) for model in self.models.values()]) for part, at in shown
            ]
            return torch.cat(votes, 1)

        return {
            defence.name: torch.stack([repeat(defence) for _ in range(defence.repeats)]) for defence in self.defences
        }


def fooled(predicted: Tensor, labels: Tensor, goals: Tensor | None = None) -> Tensor:
    """Return whether each prediction is what the attack wanted: the goal or, without goals, anything but the label.

    Shapes ``(B,), (B,), (B,) -> (B,)``, boolean. An image that the model had wrong before is no success, whatever this
    says of it: count it where the clean picture was right.

    Raises:
        InvalidSetting: for a goal that is the label: such an attack would succeed by doing nothing.

    >>> import torch
    >>> labels = torch.tensor([1, 1, 1])
    >>> fooled(torch.tensor([1, 2, 3]), labels), fooled(torch.tensor([1, 2, 3]), labels, torch.tensor([3, 3, 3]))
    (tensor([False,  True,  True]), tensor([False, False,  True]))
    """
    require_labels("labels", labels, len(predicted))
    if goals is None:
        return predicted != labels
    require_labels("goals", goals, len(predicted))
    same = (goals == labels).nonzero()
    if len(same):
        found = f"{int(goals[same[0, 0]])} for image {int(same[0, 0])}"
        raise InvalidSetting("goals", "differ from the labels", found, "Seek another class.")
    return predicted == goals


def _shares(right: Tensor, lost: Tensor) -> list[list[float | None]]:
    """By model and image, the share of the repeats lost, among those that were right; None where none was."""
    times = right.sum(0)
    shares = (right & lost).sum(0) / times
    return [
        [float(share) if count else None for share, count in zip(of_model, counts, strict=True)]
        for of_model, counts in zip(shares, times, strict=True)
    ]


def _distances(features: PerceptualFeatures, images: Tensor, clean: Tensor, batch: int) -> dict[str, Tensor]:
    """The distances that every pair has, by their names in the record."""

    def perceptual(first: Tensor, second: Tensor) -> Tensor:
        return perceptual_distance(features, first, second)

    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "perceptual_distance": perceptual,
        "ssim": structural_similarity,
        "l2": euclidean,
        "linf": largest_difference,
        "colour_difference": colour_difference,
    }
    return {name: in_parts(measure, batch, images, clean) for name, measure in measures.items()}


def _finite(values: Tensor) -> list[float | None]:
    """The numbers, with None for infinity: a picture that did not change."""
    return [float(value) if value.isfinite() else None for value in values]


def _require_one_origin(rows: Sequence[Perturbed]) -> None:
    """Refuse rows that are not made of the same pictures."""
    if not rows:
        raise InvalidSetting("rows", "hold at least one row to judge", 0)
    for row in rows:
        _require_pairs(row)
        if not (torch.equal(row.clean, rows[0].clean) and torch.equal(row.labels, rows[0].labels)):
            raise InvalidSetting("rows", "be made of the same clean pictures", f"`{row.row}` beside `{rows[0].row}`")


def _require_pairs(perturbed: Perturbed) -> None:
    """Refuse what is not 8-bit pairs with one label, name and number each."""
    pictures = [("images", perturbed.images), ("clean", perturbed.clean)]
    if perturbed.reconstructions is not None:
        pictures.append(("reconstructions", perturbed.reconstructions))
    if len(perturbed.images) == 0:
        raise InvalidSetting("images", "hold at least one image to judge", 0)
    for name, images in pictures:
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape != perturbed.images.shape:
            found = f"{tuple(images.shape)} of {images.dtype}"
            rule = f"be 8-bit pictures of one shape, {tuple(perturbed.images.shape)}"
            raise InvalidSetting(name, rule, found, "Judge what is read back from the PNG files.")
    counts = {"labels": perturbed.labels, "names": perturbed.names, "numbers": perturbed.numbers}
    optional = {"goals": perturbed.goals, "iterations": perturbed.iterations, "kept": perturbed.kept}
    for name, entries in {**counts, **{name: each for name, each in optional.items() if each is not None}}.items():
        if len(entries) != len(perturbed.images):
            raise InvalidSetting(name, f"hold one entry an image, {len(perturbed.images)} in all", len(entries))
