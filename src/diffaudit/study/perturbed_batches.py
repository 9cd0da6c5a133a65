"""The attack of a run, batch by batch: what a batch made is kept, so that a stopped run goes on at its last one."""

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from diffaudit import build
from diffaudit.eight_bit import to_bytes
from diffaudit.events import Event
from diffaudit.perturbation.attack import Iteration, attack
from diffaudit.perturbation.movers import mover_of
from diffaudit.perturbation.plans import Plans
from diffaudit.perturbation.scene import Perturber, Scene, prepared
from diffaudit.study.attack_course import joined, seen_course
from diffaudit.study.attention_pictures import attention_of_labels, save_attention
from diffaudit.study.checkpoints import made_once
from diffaudit.study.run import PerturbationRun


@dataclass(frozen=True, eq=False)
class Done:
    """What the attack made of all ``N`` pictures, in their order.

    Attributes:
        images: ``(N, 3, H, W) uint8``.
        rebuilt: the same without a perturbation.
        iterations: ``(N,)`` taken.
        broken: ``(N,)`` whether a picture or gradient that was not finite ended them.
        goals: ``(N,)`` classes sought; None where any other class would do.
        course: by name, what the iterations saw (:func:`.seen_course`).
    """

    images: Tensor
    rebuilt: Tensor
    iterations: Tensor
    broken: Tensor
    goals: Tensor | None
    course: dict[str, Tensor]


def perturbed_pictures(
    run: PerturbationRun, perturber: Perturber, plans: Plans, pictures: build.LabelledImages
) -> Done:
    """Every batch perturbed or, where an earlier try did so already, read back."""
    batches = torch.arange(len(pictures)).split(run.settings.batch)
    parts = []
    for number, rows in enumerate(batches):
        path = run.folder.checkpoints / f"batch-{number:05d}.safetensors"
        part, seconds = made_once(path, partial(_batch, run, perturber, plans, pictures, rows))
        parts.append(part)
        run.seconds["attack"] = run.seconds.get("attack", 0.0) + seconds
    found = joined(parts)
    return Done(
        images=found.pop("images"),
        rebuilt=found.pop("rebuilt"),
        iterations=found.pop("iterations"),
        broken=found.pop("broken"),
        goals=found.pop("goals", None),
        course=found,
    )


def _batch(
    run: PerturbationRun, perturber: Perturber, plans: Plans, pictures: build.LabelledImages, rows: Tensor
) -> dict[str, Tensor]:
    """The best iterates of one batch, and pictures of what the prior attended to before and after."""
    settings = run.settings
    scene = prepared(
        perturber,
        pictures.images[rows].float() / 255,
        pictures.labels[rows],
        plans.path,
        plans.recording,
        plans.mask,
    )
    goal = build.goal_of(settings, scene)
    before = int(rows[0])

    iterations: list[Iteration] = []

    def note(iteration: Iteration) -> None:
        iterations.append(iteration)
        parts = {name: float(values.mean()) for name, values in iteration.parts.items()}
        fooled = float((iteration.margins.min(0).values > 0).float().mean())
        run.watch(
            Event(
                "perturb",
                before * plans.budget.iterations + (iteration.number + 1) * len(rows),
                len(pictures) * plans.budget.iterations,
                parts | {"fooled": fooled},
            )
        )

    found = attack(
        perturber,
        scene,
        build.build_drive(settings, perturber, scene),
        build.build_terms(settings, perturber, len(rows)),
        mover_of(plans.step),
        plans,
        goal=goal,
        numbers=rows.tolist(),
        seed=settings.seed,
        on_iteration=note,
    )
    seen = attention_of_labels(perturber, scene, found.latents, plans.path, plans.recording)
    if seen is not None:
        _save_attention(run, scene, found.images, seen, rows)
    kept = {
        "images": found.images,
        "rebuilt": to_bytes(scene.rebuilt),
        "iterations": found.iterations,
        "broken": found.broken,
    }
    kept |= {} if goal is None else {"goals": goal}
    return kept | seen_course(iterations, found.margins, plans.budget.iterations)


def _save_attention(
    run: PerturbationRun, scene: Scene, images: Tensor, seen: tuple[Tensor, Tensor], rows: Tensor
) -> None:
    """Where the prior looks for the label, in the picture that nothing has changed and in what was made of it."""
    pairs = zip(rows.tolist(), scene.unperturbed, images.float() / 255, *seen, strict=True)
    for number, clean, perturbed, before, after in pairs:
        save_attention(run.folder.attention(number, "before"), clean, before)
        save_attention(run.folder.attention(number, "after"), perturbed, after)
