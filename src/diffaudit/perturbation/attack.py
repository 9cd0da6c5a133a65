"""The loop: denoise the perturbed latent, ask the surrogates and the terms, step the latent, remember the best."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffaudit.attention import AttentionBranch, AttentionLayer, AttentionView
from diffaudit.candidate import Candidate
from diffaudit.eight_bit import to_bytes
from diffaudit.objective import Objective
from diffaudit.perturbation.best import Best
from diffaudit.perturbation.drive import Drive
from diffaudit.perturbation.mask import blend
from diffaudit.perturbation.movers import Mover
from diffaudit.perturbation.plans import Plans
from diffaudit.perturbation.rendering import RawMaps, Rendered, TokenMasks, branch_of, kept_heads, render
from diffaudit.perturbation.scene import Perturber, Scene
from diffaudit.perturbation.transforms import views_of
from diffaudit.terms import topk_margin


@dataclass(frozen=True, eq=False)
class Iteration:
    """What one iteration did: its number, unweighted terms ``{name: (B,)}``, margins ``(M, B)``, who still moves."""

    number: int
    parts: Mapping[str, Tensor]
    margins: Tensor
    moving: Tensor


@dataclass(frozen=True, eq=False)
class Attacked:
    """The iterate of every picture that is kept.

    Attributes:
        images: ``(B, 3, H, W) uint8``, as they will be judged.
        latents: ``(B, c, h, w)`` that they were made from.
        margin: ``(B,)`` by which every surrogate is fooled, in logits; negative: one is not.
        distance: ``(B,)`` perceptual distance to the picture.
        iterations: ``(B,)`` taken until the picture was left alone.
        broken: ``(B,)`` whether it was left alone because its gradient, or the picture itself, was not finite.
        margins: ``(M, B)`` by which each surrogate was fooled when the picture was looked at last.
    """

    images: Tensor
    latents: Tensor
    margin: Tensor
    distance: Tensor
    iterations: Tensor
    broken: Tensor
    margins: Tensor


def fooling(logits: Tensor, labels: Tensor, goal: Tensor | None) -> Tensor:
    """``(B,)`` by how much a model is fooled: away from ``labels``, or into ``goal``; in logits, negative if not.

    >>> fooling(torch.tensor([[3.0, 1.0]]), torch.tensor([0]), None)
    tensor([-2.])
    >>> fooling(torch.tensor([[3.0, 1.0]]), torch.tensor([1]), torch.tensor([0]))
    tensor([2.])
    """
    return topk_margin(logits, labels) if goal is None else -topk_margin(logits, goal)


def attack(
    perturber: Perturber,
    scene: Scene,
    drive: Drive,
    objective: Objective | None,
    mover: Mover,
    plans: Plans,
    *,
    goal: Tensor | None,
    numbers: Sequence[int],
    seed: int,
    on_iteration: Callable[[Iteration], None] | None = None,
) -> Attacked:
    """Perturbs every picture of ``scene`` in its latent and returns the iterate of each that :class:`.Best` keeps.

    A picture that fools every surrogate by ``budget.stop_margin``, within ``budget.perceptual``, moves no more, and is
    neither denoised nor shown to a surrogate again; terms, which cost little, go on with what it was. No picture's way
    depends on the others: gradients are sums over the batch, ensemble weights are per image, and random views are drawn
    by the ``numbers (B,)`` of the pictures, ``seed`` and iteration. A picture whose gradient is not finite, or that is
    not itself, is left alone with the iterate that is kept of it, and the others go on.
    """
    recording, budget = plans.recording, plans.budget
    latents = scene.latents.clone()
    best = Best(perturber.perceptual, scene, plans.budget)
    moving = torch.ones(len(latents), dtype=torch.bool)
    broken = torch.zeros_like(moving)
    taken = torch.zeros(len(latents), dtype=torch.long)
    heads = torch.Generator()
    rendered: Rendered | None = None
    logits = latents.new_zeros(len(latents), len(perturber.names))
    margins = latents.new_zeros(len(perturber.surrogates), len(latents))
    for number in range(budget.iterations + 1):
        latents = latents.detach().requires_grad_()
        acting = latents if scene.mask is None else blend(latents, scene.latents, scene.mask)
        last = number == budget.iterations
        with torch.set_grad_enabled(not last):
            rows = moving.nonzero()[:, 0]
            found = render(
                perturber.prior,
                acting[rows],
                scene.condition[rows],
                [null and null[rows] for null in scene.nulls],
                plans.path,
                () if last else recording.layers,
                window=recording.window,
            )
            rendered = found if rendered is None else rendered.with_rows(rows, found)
        image = rendered.image if scene.residual is None else rendered.image + scene.residual
        seen = _seen(perturber, image[rows], scene.labels[rows], None if goal is None else goal[rows])
        logits, margins = (
            logits.index_copy(0, rows, seen[0].to(logits)),
            margins.index_copy(1, rows, seen[1].to(margins)),
        )
        best.offer(image, acting, margins, moving)
        moving = moving & ~best.reached
        if last or not bool(moving.any()):
            break
        views = views_of(image, plans.views, numbers, seed, number)
        rows = moving.nonzero()[:, 0]
        gradient = drive.pulled(perturber.surrogates, image, latents, views, margins, number, rows)
        parts: dict[str, Tensor] = {}
        if objective is not None:
            kept = kept_heads(rendered.steps, recording.keep_heads, heads.manual_seed(seed * 1_000_003 + number))
            view = _view(scene, rendered.steps, kept, recording.head_weights)
            scored = objective(_candidate(scene, image, logits, view), number)
            parts = scored.parts
            if scored.value.requires_grad:
                gradient = gradient + torch.autograd.grad(scored.value.sum(), latents)[0]
            del view, scored
        # A hinge may answer a picture that is no number with a gradient of 0.
        broken |= moving & ~(_finite(gradient) & _finite(image))
        moving = moving & ~broken
        # Nothing keeps this iteration's graph while the next one's is built.
        rendered = rendered.detached()
        del found, image, acting
        if not bool(moving.any()):
            break
        gradient = torch.where(moving[:, None, None, None], gradient, 0.0)
        if on_iteration is not None:
            on_iteration(Iteration(number, parts, margins, moving))
        stepped = mover(latents.detach(), gradient)
        stepped = _within(stepped, scene.latents, scene.mask, budget.radius)
        latents = torch.where(moving[:, None, None, None], stepped, latents.detach())
        taken += moving
    return Attacked(best.images, best.latents, best.margin, best.distance, taken, broken, margins)


def _finite(values: Tensor) -> Tensor:
    """``(B,)`` whether all numbers of a row are finite."""
    return values.isfinite().flatten(1).all(1)


@torch.no_grad()
def _seen(perturber: Perturber, image: Tensor, labels: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean logits ``(B, C)`` and margins ``(M, B)`` of the picture as it would be judged, in 8 bits."""
    judged = to_bytes(image).float() / 255
    logits = torch.stack([model.logits(judged) for model in perturber.surrogates.values()])
    return logits.mean(0), torch.stack([fooling(some, labels, goal) for some in logits])


def _candidate(scene: Scene, image: Tensor, logits: Tensor, view: AttentionView) -> Candidate:
    return Candidate(
        image=image,
        source=scene.unperturbed,
        target=scene.labels,
        logits=logits,
        attention=view,
        mask=scene.mask,
    )


def _view(
    scene: Scene,
    steps: Sequence[RawMaps],
    kept: Mapping[AttentionLayer, Tensor],
    weights: Sequence[float] | None,
) -> AttentionView:
    def read(maps: Sequence[RawMaps], tokens: TokenMasks | None) -> AttentionBranch:
        return branch_of(maps, tokens, kept, weights=weights)

    return AttentionView(
        perturbed=read(steps, scene.own_tokens),
        clean=read(scene.clean, scene.own_tokens),
        distractor=None if scene.rival is None else read(scene.rival, scene.swapped_tokens),
    )


def _within(latents: Tensor, start: Tensor, mask: Tensor | None, radius: float | None) -> Tensor:
    """The latents, brought back until what acts of their change has a root mean square of at most ``radius``."""
    if radius is None:
        return latents
    change = latents - start
    acting = change if mask is None else mask * change
    size = acting.square().flatten(1).mean(1).sqrt().clamp(min=torch.finfo(change.dtype).tiny)
    return start + change * (radius / size).clamp(max=1)[:, None, None, None]
