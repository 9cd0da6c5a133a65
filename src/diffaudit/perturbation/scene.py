"""What a perturbation starts from: the pictures' latents, words, clean attention and masks, all prepared once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diffaudit.attention import AttentionBranch
from diffaudit.errors import InvalidSetting
from diffaudit.models.classifier import Classifier
from diffaudit.models.conditioning import Condition
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior
from diffaudit.models.prompts import label_tokens, prompt_with, token_mask
from diffaudit.perturbation.latents import inverted
from diffaudit.perturbation.mask import attention_mask, grad_cam, label_attention
from diffaudit.perturbation.null_text import null_conditions
from diffaudit.perturbation.plans import MaskPlan, PathPlan, RecordingPlan
from diffaudit.perturbation.rendering import RawMaps, TokenMasks, branch_of, render

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
        words = _Words(perturber, labels, distractors)
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
    reads_words = any(layer.kind == "cross" for layer in recording.layers) or mask.kind == "attention"
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
    """``(B,)`` the rival class of each picture: nearest by text, or the surrogates' second choice.

    Never its own, nor another of the same name, as the bird and the machine that ImageNet both calls crane: no prompt
    could tell the two apart.

    Raises:
        InvalidSetting: `text` for a prior without a text encoder; classes that all bear one name.
    """
    match perturber.distractor:
        case "none":
            return None
        case "confusion":
            votes = [model.logits(images).softmax(1) for model in perturber.surrogates.values()]
            likeness = torch.stack(votes).mean(0)
        case "text":
            text = perturber.prior.text
            if text is None:
                raise InvalidSetting("prompts.distractor", "be `confusion` for a prior without words", "text")
            prompts = [prompt_with(perturber.template, name) for name in perturber.names]
            pooled = nn.functional.normalize(text(prompts).mean(1), dim=1)
            likeness = pooled[labels] @ pooled.T
    names = [name.casefold() for name in perturber.names]
    own = torch.tensor([[name == names[label] for name in names] for label in labels.tolist()], device=likeness.device)
    if bool(own.all(1).any()):
        raise InvalidSetting("classes", "have different names where a distractor is chosen", sorted(set(names)))
    return likeness.masked_fill(own, -torch.inf).argmax(1)


class _Words:
    """The prompts of a batch, as they are and with both names exchanged, and where the names stand in them."""

    def __init__(self, perturber: Perturber, labels: Tensor, distractors: Tensor | None) -> None:
        names = perturber.names
        self._text = perturber.prior.text
        self._labels = [names[label] for label in labels.tolist()]
        self._rivals = None if distractors is None else [names[rival] for rival in distractors.tolist()]
        rivals = self._rivals or [None] * len(self._labels)
        pairs = list(zip(self._labels, rivals, strict=True))
        self.prompts = [prompt_with(perturber.template, one, other) for one, other in pairs]
        self.swapped = [prompt_with(perturber.template, other or one, one if other else None) for one, other in pairs]

    def masks(self, tokens: int) -> TokenMasks:
        """Of the labels and, where there are some, the distractors in :attr:`prompts`."""
        own = self._mask(self.prompts, self._labels, self._rivals, tokens)
        return own, None if self._rivals is None else self._mask(self.prompts, self._rivals, self._labels, tokens)

    def swapped_masks(self, tokens: int) -> TokenMasks:
        """Of the distractors and the labels in :attr:`swapped`."""
        assert self._rivals is not None  # settings ask for a distractor where a term reads one
        return (
            self._mask(self.swapped, self._rivals, self._labels, tokens),
            self._mask(self.swapped, self._labels, self._rivals, tokens),
        )

    def _mask(self, prompts: Sequence[str], words: Sequence[str], beside: Sequence[str] | None, tokens: int) -> Tensor:
        if self._text is None:
            raise InvalidSetting("prior", "have a text encoder where attention to a label is asked for", "none")
        others: Sequence[str | None] = beside or [None] * len(words)
        return token_mask([self._found(*named) for named in zip(prompts, words, others, strict=True)], tokens)

    def _found(self, prompt: str, label: str, beside: str | None) -> tuple[int, ...]:
        assert self._text is not None
        length: int = self._text.encoder.config.max_position_embeddings  # type: ignore[union-attr, assignment]
        return label_tokens(self._text.tokenizer, prompt, label, beside=beside, length=length)


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
