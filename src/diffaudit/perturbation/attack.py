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
from diffaudit.perturbation.ensemble import EnsembleRule, Look, fused, image_gradients
from diffaudit.perturbation.mask import blend
from diffaudit.perturbation.movers import Mover
from diffaudit.perturbation.plans import Plans, ViewPlan
from diffaudit.perturbation.rendering import RawMaps, TokenMasks, branch_of, kept_heads, render
from diffaudit.perturbation.scene import Perturber, Scene
from diffaudit.perturbation.steps import pull_back
from diffaudit.perturbation.transforms import View, draw_views, due
from diffaudit.terms import topk_margin


@dataclass(frozen=True, eq=False)
class Drive:
    """What pulls the latent toward fooling: the surrogates' loss, the rule that makes one of many, and its weight.

    Attributes:
        loss: logits ``(B, C)`` of one surrogate to ``(B,)``, to be lowered.
        rule: of the ensemble; a new one for every batch.
        weight: by iteration.
        unit: whether the pulled-back gradient is brought to length 1 per image before it is weighed.
        in_latent: whether gradients are compared at the latent, with one pull-back a model, and not at the image.
        of_logits: whether the surrogates are :func:`.fused` into one model first, so that the rule has one gradient.
    """

    loss: Look
    rule: EnsembleRule
    weight: Callable[[int], float]
    unit: bool = True
    in_latent: bool = False
    of_logits: bool = False


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
    """

    images: Tensor
    latents: Tensor
    margin: Tensor
    distance: Tensor
    iterations: Tensor
    broken: Tensor


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

    A picture that fools every surrogate by ``budget.stop_margin``, within ``budget.perceptual``, moves no more. No
    picture's way depends on the others: gradients are sums over the batch, ensemble weights are per image, and random
    views are drawn by the ``numbers (B,)`` of the pictures, ``seed`` and iteration. A picture whose gradient is not
    finite, or that is not itself, is left alone with the iterate that is kept of it, and the others go on.
    """
    recording, budget = plans.recording, plans.budget
    latents = scene.latents.clone()
    best = Best(perturber.perceptual, scene, plans.budget)
    moving = torch.ones(len(latents), dtype=torch.bool)
    broken = torch.zeros_like(moving)
    taken = torch.zeros(len(latents), dtype=torch.long)
    heads = torch.Generator()
    for number in range(budget.iterations + 1):
        latents = latents.detach().requires_grad_()
        acting = latents if scene.mask is None else blend(latents, scene.latents, scene.mask)
        last = number == budget.iterations
        with torch.set_grad_enabled(not last):
            rendered = render(
                perturber.prior,
                acting,
                scene.condition,
                scene.nulls,
                plans.path,
                () if last else recording.layers,
                window=recording.window,
            )
        image = rendered.image if scene.residual is None else rendered.image + scene.residual
        logits, margins = _seen(perturber, image, scene.labels, goal)
        best.offer(image, acting, margins, moving)
        moving = moving & ~best.reached
        if last or not bool(moving.any()):
            break
        drawn = _views(image, plans.views, numbers, seed, number)
        gradient = _pulled(perturber, drive, image, latents, drawn, margins, number)
        parts: dict[str, Tensor] = {}
        if objective is not None:
            kept = kept_heads(rendered.steps, recording.keep_heads, heads.manual_seed(seed * 1_000_003 + number))
            view = _view(scene, rendered.steps, kept, recording.head_weights)
            candidate = Candidate(
                image=image,
                source=scene.unperturbed,
                target=scene.labels,
                logits=logits,
                attention=view,
                mask=scene.mask,
            )
            scored = objective(candidate, number)
            parts = scored.parts
            if scored.value.requires_grad:
                gradient = gradient + torch.autograd.grad(scored.value.sum(), latents)[0]
        # A hinge may answer a picture that is no number with a gradient of 0.
        broken |= moving & ~(_finite(gradient) & _finite(image))
        moving = moving & ~broken
        if not bool(moving.any()):
            break
        gradient = torch.where(moving[:, None, None, None], gradient, 0.0)
        if on_iteration is not None:
            on_iteration(Iteration(number, parts, margins, moving))
        stepped = mover(latents.detach(), gradient)
        stepped = _within(stepped, scene.latents, budget.radius)
        latents = torch.where(moving[:, None, None, None], stepped, latents.detach())
        taken += moving
    return Attacked(best.images, best.latents, best.margin, best.distance, taken, broken)


def _pulled(
    perturber: Perturber,
    drive: Drive,
    image: Tensor,
    latents: Tensor,
    views: Sequence[View],
    margins: Tensor,
    number: int,
) -> Tensor:
    """The surrogates' combined gradient at the latent, by its weight; the graph is kept for the terms."""
    models: list[Look] = [model.logits for model in perturber.surrogates.values()]
    asked = [fused(models)] if drive.of_logits else models
    gradients, losses = image_gradients(asked, image, drive.loss, views=views)
    if drive.in_latent:
        gradients = torch.stack([pull_back(image, latents, one, retain_graph=True) for one in gradients])
        pulled = drive.rule(gradients, losses, margins).gradient
    else:
        pulled = pull_back(image, latents, drive.rule(gradients, losses, margins).gradient, retain_graph=True)
    if drive.unit:
        length = pulled.flatten(1).norm(dim=1).clamp(min=torch.finfo(pulled.dtype).tiny)
        pulled = pulled / length[:, None, None, None]
    weighed: Tensor = drive.weight(number) * pulled
    return weighed


def _finite(values: Tensor) -> Tensor:
    """``(B,)`` whether all numbers of a row are finite."""
    return values.isfinite().flatten(1).all(1)


@torch.no_grad()
def _seen(perturber: Perturber, image: Tensor, labels: Tensor, goal: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean logits ``(B, C)`` and margins ``(M, B)`` of the picture as it would be judged, in 8 bits."""
    judged = to_bytes(image).float() / 255
    logits = torch.stack([model.logits(judged) for model in perturber.surrogates.values()])
    return logits.mean(0), torch.stack([fooling(some, labels, goal) for some in logits])


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


def _views(image: Tensor, plan: ViewPlan, numbers: Sequence[int], seed: int, iteration: int) -> tuple[View, ...]:
    """The iteration's views, drawn picture by picture, so that none depends on its batch."""
    if plan.samples == 0 or not due(iteration, plan.every):
        return ()
    generator = torch.Generator()
    rows = [
        draw_views(
            one,
            plan.samples,
            generator.manual_seed((seed * 1_000_003 + number) * 1_009 + iteration),
            rotation=plan.rotation,
            scale=plan.scale,
            hue=plan.hue,
            noise=plan.noise,
        )
        for number, one in zip(numbers, image.detach().split(1), strict=True)
    ]
    return tuple(
        View(*(torch.cat([getattr(view, name) for view in same]) for name in ("degrees", "scales", "hues", "noise")))
        for same in zip(*rows, strict=True)
    )


def _within(latents: Tensor, start: Tensor, radius: float | None) -> Tensor:
    """The latents, brought back to a root mean square of at most ``radius`` from where they began."""
    if radius is None:
        return latents
    change = latents - start
    size = change.square().flatten(1).mean(1).sqrt().clamp(min=torch.finfo(change.dtype).tiny)
    return start + change * (radius / size).clamp(max=1)[:, None, None, None]
