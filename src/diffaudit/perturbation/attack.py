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
    course = _Course(perturber, scene, drive, objective, mover, plans, goal, numbers, seed)
    for number in range(plans.budget.iterations):
        done = course.iterate(number)
        if done is None:
            break
        if on_iteration is not None:
            on_iteration(done)
    else:
        course.look_once_more()
    return course.ended()


@dataclass(eq=False)
class _Course:
    """A batch on its way: where its latents are, what was last seen of its pictures, and who still moves."""

    perturber: Perturber
    scene: Scene
    drive: Drive
    objective: Objective | None
    mover: Mover
    plans: Plans
    goal: Tensor | None
    numbers: Sequence[int]
    seed: int

    def __post_init__(self) -> None:
        self.latents = self.scene.latents.clone()
        count = len(self.latents)
        self.best = Best(self.perturber.perceptual, self.scene, self.plans.budget)
        self.moving = torch.ones(count, dtype=torch.bool)
        self.broken = torch.zeros(count, dtype=torch.bool)
        self.taken = torch.zeros(count, dtype=torch.long)
        self.rendered: Rendered | None = None
        self.logits = self.latents.new_zeros(count, len(self.perturber.names))
        self.margins = self.latents.new_zeros(len(self.perturber.surrogates), count)
        self._heads = torch.Generator()

    def iterate(self, number: int) -> Iteration | None:
        """Looks at the pictures and steps the latents of those that move on; None where no picture does any more.

        Its graph ends with it: nothing keeps one iteration's while the next one's is built.
        """
        latents = self.latents.detach().requires_grad_()
        rendered, image = self._look(latents, self.plans.recording.layers)
        if not bool(self.moving.any()):
            return None
        gradient = self._drive(image, latents, number)
        parts: Mapping[str, Tensor] = {}
        if self.objective is not None:
            pull, parts = self._terms(self.objective, rendered, image, latents, number)
            gradient = gradient if pull is None else gradient + pull
        # A hinge may answer a picture that is no number with a gradient of 0.
        self.broken |= self.moving & ~(_finite(gradient) & _finite(image))
        self.moving = self.moving & ~self.broken
        self.rendered = rendered.detached()
        if not bool(self.moving.any()):
            return None
        self._step(latents.detach(), gradient)
        return Iteration(number, parts, self.margins, self.moving)

    @torch.no_grad()
    def look_once_more(self) -> None:
        """Judges what the last step made."""
        self._look(self.latents, ())

    def ended(self) -> Attacked:
        """What is kept."""
        best = self.best
        return Attacked(best.images, best.latents, best.margin, best.distance, self.taken, self.broken, self.margins)

    def _look(self, latents: Tensor, layers: Sequence[AttentionLayer]) -> tuple[Rendered, Tensor]:
        """Renders the pictures that move, asks the surrogates, and leaves alone from here on who fools them enough.

        The image ``(B, 3, H, W)`` has the graph of these pictures; the others are what they were.
        """
        scene, plans, rows = self.scene, self.plans, self.moving.nonzero()[:, 0]
        acting = latents if scene.mask is None else blend(latents, scene.latents, scene.mask)
        found = render(
            self.perturber.prior,
            acting[rows],
            scene.condition[rows],
            [null and null[rows] for null in scene.nulls],
            plans.path,
            layers,
            window=plans.recording.window,
        )
        rendered = found if self.rendered is None else self.rendered.with_rows(rows, found)
        image = rendered.image if scene.residual is None else rendered.image + scene.residual
        goal = None if self.goal is None else self.goal[rows]
        logits, margins = _seen(self.perturber, image[rows], scene.labels[rows], goal)
        self.logits = self.logits.index_copy(0, rows, logits.to(self.logits))
        self.margins = self.margins.index_copy(1, rows, margins.to(self.margins))
        self.best.offer(image, acting, self.margins, self.moving)
        self.moving = self.moving & ~self.best.reached
        return rendered, image

    def _drive(self, image: Tensor, latents: Tensor, number: int) -> Tensor:
        """The surrogates' gradient at the latents, ``(B, c, h, w)``."""
        views = views_of(image, self.plans.views, self.numbers, self.seed, number)
        rows = self.moving.nonzero()[:, 0]
        return self.drive.pulled(self.perturber.surrogates, image, latents, views, self.margins, number, rows)

    def _terms(
        self, objective: Objective, rendered: Rendered, image: Tensor, latents: Tensor, number: int
    ) -> tuple[Tensor | None, Mapping[str, Tensor]]:
        """The terms' gradient at the latents, None where none of them has one, and their values ``{name: (B,)}``."""
        recording = self.plans.recording
        self._heads.manual_seed(self.seed * 1_000_003 + number)
        kept = kept_heads(rendered.steps, recording.keep_heads, self._heads)
        view = _view(self.scene, rendered.steps, kept, recording.head_weights)
        scored = objective(_candidate(self.scene, image, self.logits, view), number)
        if not scored.value.requires_grad:
            return None, scored.parts
        return torch.autograd.grad(scored.value.sum(), latents)[0], scored.parts

    def _step(self, latents: Tensor, gradient: Tensor) -> None:
        """One step of the pictures that move."""
        moves = self.moving[:, None, None, None]
        stepped = self.mover(latents, torch.where(moves, gradient, 0.0))
        stepped = _within(stepped, self.scene.latents, self.scene.mask, self.plans.budget.radius)
        self.latents = torch.where(moves, stepped, latents)
        self.taken += self.moving


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
