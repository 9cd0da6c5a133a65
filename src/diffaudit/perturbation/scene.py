"""What a perturbation starts from: the pictures' latents, words, clean attention and masks, all prepared once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from diffaudit.attention import AttentionBranch
from diffaudit.errors import InvalidSetting
from diffaudit.models.classifier import Classifier
from diffaudit.models.conditioning import Condition
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.distractors import nearest_names, rivals_by
from diffaudit.perturbation.latents import inverted
from diffaudit.perturbation.mask import attention_mask, grad_cam, label_attention
from diffaudit.perturbation.null_text import null_conditions
from diffaudit.perturbation.plans import MaskPlan, PathPlan, RecordingPlan
from diffaudit.perturbation.rendering import RawMaps, TokenMasks, branch_of, render
from diffaudit.perturbation.words import Words

EVERYWHERE = MaskPlan()


@dataclass(frozen=True, eq=False)
class Perturber:
    """All that the attack holds: the surrogates, a prior, the words of all classes, how a rival class is chosen."""

    prior: DiffusionPrior
    surrogates: Mapping[str, Classifier]
    names: tuple[str, ...]
    template: str
    perceptual: PerceptualFeatures
    encoder: IdentityEncoder | None = None
    distractor: Literal["none", "text", "confusion"] = "none"

    @cached_property
    def nearest_names(self) -> Tensor:
        """``(C,)`` the class whose name is nearest to each class's own; read once.

        Raises:
            InvalidSetting: the prior has no text encoder, and what :func:`.nearest_names` refuses.
        """
        if self.prior.text is None:
            raise InvalidSetting("prompts.distractor", "be `confusion` for a prior without words", "text")
        return nearest_names(self.prior.text, self.names)


@dataclass(frozen=True, eq=False)
class Scene:
    """``B`` pictures ready to be perturbed.

    Attributes:
        images: ``(B, 3, H, W)`` in [0, 1].
        labels: ``(B,)`` true classes.
        distractors: ``(B,)`` rival classes; None where none are chosen.
        condition: of each picture's prompt.
        nulls: the null condition of each step on the way back, None without guidance.
        latents: ``(B, c, h, w)`` where the way back begins.
        rebuilt: ``(B, 3, H, W)`` in [0, 1]: what the way back returns to without a perturbation.
        residual: ``(B, 3, H, W)`` what it loses, where that is added back; None: it stays lost.
        clean: the attention on that way, before heads are averaged.
        rival: the same under the prompt with both names exchanged; None where no term asks.
        own_tokens: ``(B, T)`` boolean masks of the label's tokens and, if any, the distractor's, in the prompt; None
            where no words are read.
        swapped_tokens: the same in the prompt with both names exchanged, the distractor's first.
        mask: ``(B, 1, h, w)`` where the perturbation acts; None: everywhere.
    """

    images: Tensor
    labels: Tensor
    distractors: Tensor | None
    condition: Condition
    nulls: tuple[Condition | None, ...]
    latents: Tensor
    rebuilt: Tensor
    residual: Tensor | None
    clean: tuple[RawMaps, ...]
    rival: tuple[RawMaps, ...] | None
    own_tokens: TokenMasks | None
    swapped_tokens: TokenMasks | None
    mask: Tensor | None

    @property
    def unperturbed(self) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1]: what comes out where nothing was changed in the latent."""
        return self.rebuilt if self.residual is None else self.images


def prepared(
    perturber: Perturber,
    images: Tensor,
    labels: Tensor,
    path: PathPlan,
    recording: RecordingPlan,
    mask: MaskPlan = EVERYWHERE,
) -> Scene:
    """Inverts ``images (B, 3, H, W)`` of classes ``labels (B,)`` and looks at the clean way back once.

    Raises:
        InvalidSetting: a class whose words are not in the prompt as the prior's tokenizer knows it; a label's attention
            asked of a prior without words.
    """
    prior = perturber.prior
    with torch.no_grad():
        distractors = chosen_distractors(perturber, images, labels)
        words = _words(perturber, labels, distractors)
        embeddings = None if perturber.encoder is None else perturber.encoder(images)
        condition = prior.condition(embeddings, len(images), words.prompts)
        trajectory = inverted(prior, prior.encode(images), condition, steps=path.steps, start=path.start)
    nulls = _nulls(prior, trajectory, condition, path)
    with torch.no_grad():
        clean = render(prior, trajectory[-1], condition, nulls, path, recording.layers, window=recording.window)
        rival = None
        if recording.with_rival:
            swapped = prior.condition(embeddings, len(images), words.swapped)
            rival = render(prior, trajectory[-1], swapped, nulls, path, recording.layers, window=recording.window).steps
    reads_words = recording.reads_words or mask.kind == "attention"
    own = words.masks(condition.tokens.shape[1]) if reads_words else None
    seen = branch_of(clean.steps, own, weights=recording.head_weights)
    side = trajectory[-1].shape[-1]
    return Scene(
        images=images,
        labels=labels,
        distractors=distractors,
        condition=condition,
        nulls=nulls,
        latents=trajectory[-1],
        rebuilt=clean.image.clamp(0, 1),
        residual=images - clean.image if path.residual else None,
        clean=clean.steps,
        rival=rival,
        own_tokens=own,
        swapped_tokens=words.swapped_masks(condition.tokens.shape[1]) if recording.with_rival else None,
        mask=_mask(perturber, images, labels, seen, mask, side),
    )


@torch.no_grad()
def chosen_distractors(perturber: Perturber, images: Tensor, labels: Tensor) -> Tensor | None:
    """``(B,)`` the rival class of each picture: nearest by text, or the surrogates' second choice, by mean prediction.

    Raises:
        InvalidSetting: `text` for a prior without a text encoder; classes that all bear one name.
    """
    match perturber.distractor:
        case "none":
            return None
        case "confusion":
            votes = [model.logits(images).softmax(1) for model in perturber.surrogates.values()]
            return rivals_by(torch.stack(votes).mean(0), labels, perturber.names)
        case "text":
            return perturber.nearest_names[labels]


def _words(perturber: Perturber, labels: Tensor, distractors: Tensor | None) -> Words:
    names = perturber.names
    rivals = None if distractors is None else [names[rival] for rival in distractors.tolist()]
    return Words(perturber.prior.text, perturber.template, [names[label] for label in labels.tolist()], rivals)


def _nulls(
    prior: DiffusionPrior, trajectory: Sequence[Tensor], condition: Condition, path: PathPlan
) -> tuple[Condition | None, ...]:
    """The null condition of every step: none at guidance 1, the prior's own, or one optimised for the picture."""
    if path.guidance_scale == 1:
        return (None,) * (path.steps - path.start)
    with torch.no_grad():
        null = prior.condition(None, len(condition), "")
    if path.null_steps is None:
        return (null,) * (path.steps - path.start)
    return null_conditions(
        prior,
        trajectory,
        condition,
        null,
        steps=path.steps,
        start=path.start,
        guidance_scale=path.guidance_scale,
        inner_steps=path.null_steps,
        rate=path.null_rate,
    )


def _mask(
    perturber: Perturber,
    images: Tensor,
    labels: Tensor,
    clean: AttentionBranch,
    mask: MaskPlan,
    side: int,
) -> Tensor | None:
    match mask.kind:
        case "none":
            return None
        case "grad_cam":
            return grad_cam(list(perturber.surrogates.values()), images, labels, side, threshold=mask.threshold)
        case "attention":
            return attention_mask(label_attention(clean, mask.layers), side, threshold=mask.threshold)
