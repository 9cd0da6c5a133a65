"""Trains the generator toward the classes sought: one stage after another, all classes together in mixed batches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import LabelEmbedding
from diffaudit.inversion.generator import Generator, lora_parameters
from diffaudit.models.conditioning import Condition
from diffaudit.objective import Objective


@dataclass(frozen=True)
class ImagePlan:
    """How a training image is made: in ``one_step`` from a random time step, or by a ``rollout`` of the sampler."""

    mode: str
    steps: int
    gradient_steps: int
    strength: float
    guidance_scale: float


@dataclass(frozen=True)
class StagePlan:
    """One stage: ``trains`` names parameter groups (`embedding`, `lora`, `projector`), rates are per group."""

    name: str
    trains: tuple[str, ...]
    steps: int
    rates: dict[str, float]
    batch: int
    first_step: int
    warmup: int
    clip: float
    weight_decay: float

    def rate_factor(self, step: int) -> float:
        """Share of the full rate at ``step``: linear warm-up, cosine decay to zero."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.steps - self.warmup)))


@dataclass(frozen=True, eq=False)
class StepReport:
    """What a step did: unweighted batch means, mean weighted value, the gradient's norm before clipping, accuracy."""

    stage: str
    step: int
    parts: dict[str, float]
    value: float
    gradient_norm: float
    target_accuracy: float


@dataclass(eq=False)
class TrainingState:
    """All that changes while a run trains: what a checkpoint must hold."""

    embedding: LabelEmbedding
    attacker: Attacker

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by the names that stages use."""
        projector = self.attacker.prior.projector
        return {
            "embedding": list(self.embedding.parameters()),
            "lora": lora_parameters(self.attacker.prior),
            "projector": [] if projector is None else list(projector.parameters()),
        }


def stage_optimiser(state: TrainingState, plan: StagePlan) -> torch.optim.AdamW:
    """AdamW over the groups that the stage trains; every other parameter is frozen.

    Raises:
        InvalidSetting: the generator has none of these groups.
    """
    groups = state.groups()
    if not any(groups[name] for name in plan.trains):
        found = [name for name, parameters in groups.items() if parameters]
        raise InvalidSetting("trains", f"name what this generator has: {', '.join(found)}", list(plan.trains))
    for name, parameters in groups.items():
        for parameter in parameters:
            parameter.requires_grad_(name in plan.trains)
    return torch.optim.AdamW(
        [{"params": groups[name], "base_rate": plan.rates[name]} for name in plan.trains if groups[name]],
        lr=0.0,
        weight_decay=plan.weight_decay,
    )


def train_stage(
    state: TrainingState,
    objective: Objective,
    plan: StagePlan,
    image: ImagePlan,
    optimiser: torch.optim.Optimizer,
    anchors: Callable[[Tensor], Tensor],
    *,
    seed: int,
    begin: int = 0,
    on_step: Callable[[StepReport, torch.optim.Optimizer], None] | None = None,
) -> None:
    """Runs steps ``begin .. plan.steps - 1``.

    Step ``i`` draws from ``(seed, first_step + i)`` alone, so a run that was stopped goes on with the same numbers.
    ``anchors`` maps class rows ``(B,)`` to the unit vectors ``(B, D)`` that the identity term pulls toward.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for step in range(begin, plan.steps):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + plan.first_step + step)
        for group in optimiser.param_groups:
            group["lr"] = group["base_rate"] * plan.rate_factor(step)
        weights = objective.weighting.weights(plan.first_step + step)
        candidate = draw_candidate(state, plan, image, anchors, generator, prior_weight=weights.get("prior"))
        scored = objective(candidate, plan.first_step + step)
        loss = scored.value.mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, plan.clip)
        optimiser.step()
        state.embedding.confine()
        if on_step is not None:
            hits = (candidate.logits.argmax(1) == candidate.target).double().mean()
            parts = {name: float(value.mean()) for name, value in scored.parts.items()}
            on_step(StepReport(plan.name, step, parts, float(loss.detach()), float(norm), float(hits)), optimiser)


def draw_candidate(
    state: TrainingState,
    plan: StagePlan,
    image: ImagePlan,
    anchors: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    *,
    prior_weight: float | None,
) -> Candidate:
    """A mixed batch: classes drawn evenly, each with a random public source, and the prior's own draw beside it.

    The prior's draw is left out where ``prior_weight`` is None; at 0 it is made without gradient, to be watched.
    """
    attacker = state.attacker
    rows = _even_rows(len(attacker.classes), plan.batch, generator)
    sources = torch.randint(len(attacker.public), (plan.batch,), generator=generator)
    source = attacker.public.at(sources)
    embeddings = state.embedding(rows)
    model = Generator(attacker.prior, prompt=attacker.prompt)
    with torch.no_grad():
        latents = attacker.prior.encode(source)
    noise = torch.randn(latents.shape, generator=generator)
    if image.mode == "rollout":
        clean = model.rollout(
            latents,
            noise,
            embeddings,
            steps=image.steps,
            strength=image.strength,
            guidance_scale=image.guidance_scale,
            gradient_steps=image.gradient_steps,
        )
    else:
        top = max(1, round(image.strength * attacker.prior.num_train_timesteps))
        timesteps = torch.randint(top, (plan.batch,), generator=generator)
        clean = model.one_step(latents, noise, embeddings, timesteps, guidance_scale=image.guidance_scale)
    picture = attacker.prior.decode(clean)
    outputs = attacker.classifier(picture)
    drawn: tuple[Tensor, Tensor, Tensor] | tuple[None, None, None] = (None, None, None)
    if prior_weight is not None:
        with torch.set_grad_enabled(prior_weight > 0):
            drawn = _prior_draw(state, plan, rows, generator)
    return Candidate(
        image=picture,
        source=source,
        target=attacker.classes[rows],
        logits=outputs.logits,
        features=outputs.features,
        embedding=attacker.encoder(picture),
        anchor=anchors(rows).detach(),
        noise=drawn[0],
        prediction=drawn[1],
        progress=drawn[2],
    )


def _prior_draw(
    state: TrainingState, plan: StagePlan, rows: Tensor, generator: torch.Generator, *, null_rate: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, the prior's prediction of it and the progress ``s``, on pictures of their own.

    Where LoRA trains (``own``): random public pictures under their own embeddings, which protects the generator. Where
    the label embedding trains alone (``pseudo``): pictures that the target scores highest for the class, under the
    class's embedding, which is the objective of textual inversion.
    """
    attacker = state.attacker
    prior, public = attacker.prior, attacker.public
    own = "lora" in plan.trains or "projector" in plan.trains
    if own:
        pictures = torch.randint(len(public), (len(rows),), generator=generator)
        embeddings = public.embeddings[pictures]
    else:
        best = public.best(attacker.classes[rows], min(16, len(public)))
        column = torch.randint(best.shape[1], (len(rows), 1), generator=generator)
        pictures = best.gather(1, column)[:, 0]
        embeddings = state.embedding(rows)
    with torch.no_grad():
        latents = prior.encode(public.at(pictures))
    noise = torch.randn(latents.shape, generator=generator)
    timesteps = torch.randint(prior.num_train_timesteps, (len(rows),), generator=generator)
    kept = torch.rand(len(rows), generator=generator) >= null_rate
    condition: Condition = prior.condition(embeddings, len(rows), attacker.prompt)
    condition = condition.where(kept, prior.condition(None, len(rows), ""))
    prediction = prior.epsilon(prior.add_noise(latents, noise, timesteps), timesteps, condition)
    return noise, prediction, 1 - timesteps / (prior.num_train_timesteps - 1)


def _even_rows(classes: int, count: int, generator: torch.Generator) -> Tensor:
    """``count`` class rows in which no class comes up twice before all have come up once."""
    rounds: Sequence[Tensor] = [torch.randperm(classes, generator=generator) for _ in range(-(-count // classes))]
    return torch.cat(list(rounds))[:count]
