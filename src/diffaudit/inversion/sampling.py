"""Draws reconstructions: candidates per class from public sources, of which the target's surest are kept."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffaudit.eight_bit import to_bytes
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.generator import Generator
from diffaudit.inversion.guidance import ClassifierGuidance
from diffaudit.inversion.plans import SamplePlan
from diffaudit.inversion.selection import keep_best, robust_log_probability
from diffaudit.inversion.sources import spread_rows


@dataclass(frozen=True, eq=False)
class Reconstructions:
    """``images (n * keep, 3, H, W) uint8``, class by class and best first, and what belongs to each.

    ``labels`` are their classes, ``sources`` numbers of public pictures, ``scores`` the mean log-probabilities under
    views that they were kept for.
    """

    images: Tensor
    labels: Tensor
    sources: Tensor
    scores: Tensor


@torch.no_grad()
def sample(
    attacker: Attacker,
    embeddings: Tensor,
    plan: SamplePlan,
    *,
    seed: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> Reconstructions:
    """``plan.keep`` reconstructions of each of the attacker's ``n`` classes under ``embeddings (n, D)``.

    Sources and noise depend on ``seed``, the class, the number of candidates and the public pictures alone: the same
    class gets the same ones in every row of a run, which pairs the rows, and whatever other classes the run holds. A
    class's sources and noise come from one generator, so that with more candidates the first ones get another noise.
    The images are 8-bit, as they will be judged.
    """
    generator = Generator(attacker.prior, prompt=attacker.prompt)
    rows = torch.arange(len(attacker.classes)).repeat_interleave(plan.candidates)
    sources, noise = _draws(attacker, plan, seed)
    labels = attacker.classes[rows]
    parts = []
    for start in range(0, len(rows), plan.batch):
        part = slice(start, start + plan.batch)
        clean = generator.rollout(
            attacker.prior.encode(attacker.public.at(sources[part])),
            noise[part],
            embeddings[rows[part]],
            steps=plan.steps,
            strength=plan.strength,
            guidance_scale=plan.guidance_scale,
            guide=_guide(attacker, plan, labels[part]),
        )
        parts.append(to_bytes(attacker.prior.decode(clean)))
        if on_batch is not None:
            on_batch(min(start + plan.batch, len(rows)), len(rows))
    images = torch.cat(parts)
    view_generator = torch.Generator().manual_seed(seed)
    scores = torch.cat(
        [
            robust_log_probability(
                attacker.classifier,
                some.float() / 255,
                label,
                views=plan.views,
                generator=view_generator.manual_seed(seed),
            )
            for some, label in zip(images.split(plan.batch), labels.split(plan.batch), strict=True)
        ]
    )
    best = keep_best(scores.view(-1, plan.candidates), plan.keep)
    kept = (best + torch.arange(len(best))[:, None] * plan.candidates).flatten()
    return Reconstructions(images[kept], labels[kept], sources[kept], scores[kept])


def _guide(attacker: Attacker, plan: SamplePlan, target: Tensor) -> ClassifierGuidance | None:
    if plan.classifier_guidance == 0:
        return None
    return ClassifierGuidance(
        attacker.prior, attacker.classifier, target, plan.classifier_guidance, plan.classifier_guidance_every
    )


def _draws(attacker: Attacker, plan: SamplePlan, seed: int) -> tuple[Tensor, Tensor]:
    """Sources ``(n * candidates,)`` and noise ``(n * candidates, c, h, w)``, class by class."""
    looks = _looks(attacker) if plan.sources == "spread" else None
    shape = attacker.prior.encode(attacker.public.at(torch.zeros(1, dtype=torch.long))).shape[1:]
    sources, noise = [], []
    for label in attacker.classes.tolist():
        generator = torch.Generator().manual_seed(seed * 1_000_003 + label)
        if looks is None:
            sources.append(torch.randint(len(attacker.public), (plan.candidates,), generator=generator))
        else:
            sources.append(spread_rows(looks, plan.candidates, generator))
        noise.append(torch.randn(plan.candidates, *shape, generator=generator))
    return torch.cat(sources), torch.cat(noise)


def _looks(attacker: Attacker) -> Tensor:
    """``(N, F)`` standardised attributes of the public pictures."""
    parts = [attacker.attributes(part.float() / 255) for part in attacker.public.images.split(128)]
    return torch.cat([torch.cat(list(found.values()), dim=1) for found in parts])
