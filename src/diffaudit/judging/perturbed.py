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
    def records(self, perturbed: Perturbed, generator: torch.Generator, *, batch: int = 64) -> list[PerturbationRecord]:
        """One record per image, in order.

        ``generator`` decides what randomised defences draw: give every row one of the same seed, and its images meet
        the same draws.

        Raises:
            InvalidSetting: for images that are not 8-bit pairs, for a goal that is the label, and for counts that
                differ.
        """
        _require_pairs(perturbed)
        images, clean = perturbed.images.float() / 255, perturbed.clean.float() / 255
        labels, goals = perturbed.labels, perturbed.goals
        hits, predicted = {}, {}
        for name, model in self.models.items():
            hits[name] = topk_success(in_parts(model.logits, batch, clean), labels).tolist()
            predicted[name] = in_parts(model.logits, batch, images).argmax(1)
        won = {name: fooled(classes, labels, goals).tolist() for name, classes in predicted.items()}
        defended = {
            defence.name: self._defended(defence, images, clean, labels, goals, generator, batch)
            for defence in self.defences
        }
        distances = _distances(self.perceptual, images, clean, batch)
        noise = _finite(in_parts(signal_to_noise, batch, images, clean))
        rebuilt: list[float | None] = [None] * len(labels)
        if perturbed.reconstructions is not None:
            rebuilt = _finite(in_parts(signal_to_noise, batch, perturbed.reconstructions, clean))
        return [
            PerturbationRecord(
                row=perturbed.row,
                image=perturbed.numbers[i],
                name=perturbed.names[i],
                label=int(labels[i]),
                goal=None if goals is None else int(goals[i]),
                picture=picture_path(perturbed.row, perturbed.numbers[i]),
                clean_picture=picture_path("clean", perturbed.numbers[i]),
                clean_hits={name: hit[i] for name, hit in hits.items()},
                predicted={name: int(classes[i]) for name, classes in predicted.items()},
                fooled={name: success[i] for name, success in won.items()},
                defended={
                    defence: {name: shares[i] for name, shares in by_model.items()}
                    for defence, by_model in defended.items()
                },
                psnr=noise[i],
                reconstruction_psnr=rebuilt[i],
                iterations=None if perturbed.iterations is None else int(perturbed.iterations[i]),
                label_kept=None if perturbed.kept is None else bool(perturbed.kept[i]),
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

    def _defended(
        self,
        defence: Defence,
        images: Tensor,
        clean: Tensor,
        labels: Tensor,
        goals: Tensor | None,
        generator: torch.Generator,
        batch: int,
    ) -> dict[str, list[float | None]]:
        """By model, each image's share of the repeats fooled, among those in which the clean picture was right.

        Both pictures of a pair meet the same draw, so that a picture which the defence alone spoils counts for nobody.
        """
        right = {name: torch.zeros(len(labels), device=labels.device) for name in self.models}
        lost = {name: torch.zeros(len(labels), device=labels.device) for name in self.models}
        for _ in range(defence.repeats):
            for rows in torch.arange(len(labels)).split(batch):
                state = generator.get_state()
                before = defence.apply(clean[rows], generator)
                generator.set_state(state)
                after = defence.apply(images[rows], generator)
                for name, model in self.models.items():
                    was_right = topk_success(model.logits(before), labels[rows])
                    sought = None if goals is None else goals[rows]
                    right[name][rows] += was_right
                    lost[name][rows] += was_right & fooled(model.logits(after).argmax(1), labels[rows], sought)
        return {
            name: [float(lost[name][i] / times) if times else None for i, times in enumerate(right[name])]
            for name in self.models
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
