"""Draws reconstructions: candidates per class from public sources, of which the target's surest are kept."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.generator import Generator
from diffaudit.inversion.selection import keep_best, robust_log_probability


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
    *,
    steps: int,
    strength: float,
    guidance_scale: float,
    candidates: int,
    keep: int,
    views: int,
    batch: int,
    seed: int,
    on_batch: Callable[[int, int], None] | None = None,
) -> Reconstructions:
    """``keep`` reconstructions of each of the attacker's ``n`` classes under unit ``embeddings (n, D)``.

    Sources and noise depend on ``seed`` and the class alone: the same class gets the same ones in every row of a run,
    which pairs the rows, and whatever other classes the run holds. The images are 8-bit, as they will be judged.
    """
    generator = Generator(attacker.prior, prompt=attacker.prompt)
    rows = torch.arange(len(attacker.classes)).repeat_interleave(candidates)
    draws = [_draw(attacker, int(label), candidates, seed) for label in attacker.classes]
    sources = torch.cat([source for source, _ in draws])
    noise = torch.cat([values for _, values in draws])
    parts = []
    for start in range(0, len(rows), batch):
        part = slice(start, start + batch)
        latents = attacker.prior.encode(attacker.public.at(sources[part]))
        clean = generator.rollout(
            latents, noise[part], embeddings[rows[part]], steps=steps, strength=strength, guidance_scale=guidance_scale
        )
        parts.append((attacker.prior.decode(clean).clamp(0, 1) * 255).round().byte())
        if on_batch is not None:
            on_batch(min(start + batch, len(rows)), len(rows))
    images = torch.cat(parts)
    labels = attacker.classes[rows]
    view_generator = torch.Generator().manual_seed(seed)
    scores = torch.cat(
        [
            robust_log_probability(
                attacker.classifier, some.float() / 255, label, views=views, generator=view_generator.manual_seed(seed)
            )
            for some, label in zip(images.split(batch), labels.split(batch), strict=True)
        ]
    )
    best = keep_best(scores.view(-1, candidates), keep)
    kept = (best + torch.arange(len(best))[:, None] * candidates).flatten()
    return Reconstructions(images[kept], labels[kept], sources[kept], scores[kept])


def _draw(attacker: Attacker, label: int, candidates: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed * 1_000_003 + label)
    sources = torch.randint(len(attacker.public), (candidates,), generator=generator)
    shape = attacker.prior.encode(attacker.public.at(sources[:1])).shape[1:]
    return sources, torch.randn(candidates, *shape, generator=generator)
