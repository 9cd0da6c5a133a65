"""One training step's candidates: a mixed batch of pictures in the making, and all that terms ask about them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.inversion.generator import Generator
from diffaudit.inversion.plans import ImagePlan, StagePlan
from diffaudit.inversion.selection import random_view
from diffaudit.inversion.state import TrainingState
from diffaudit.models.conditioning import Condition
from diffaudit.models.negatives import Negatives


def draw_candidate(
    state: TrainingState,
    plan: StagePlan,
    image: ImagePlan,
    anchors: Callable[[Tensor], Tensor],
    rows: Tensor,
    generator: torch.Generator,
    *,
    step: int,
    prior_weight: float | None,
) -> Candidate:
    """A mixed batch: pictures of the classes ``rows (B,)``, each of a random public source, and the prior's own draw.

    ``step`` counts within the stage. The prior's draw is left out where ``prior_weight`` is None; at 0 it is made
    without gradient, to be watched.
    """
    attacker = state.attacker
    sources = torch.randint(len(attacker.public), (len(rows),), generator=generator)
    source = attacker.public.at(sources)
    embeddings = _identities(state, plan, rows, sources, step)
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
        timesteps = torch.randint(top, (len(rows),), generator=generator)
        clean = model.one_step(latents, noise, embeddings, timesteps, guidance_scale=image.guidance_scale)
    picture = attacker.prior.decode(clean)
    outputs = attacker.classifier(random_view(picture, generator) if image.random_view else picture)
    drawn: tuple[Tensor, Tensor, Tensor] | tuple[None, None, None] = (None, None, None)
    if prior_weight is not None:
        with torch.set_grad_enabled(prior_weight > 0):
            drawn = _prior_draw(state, plan, rows, generator)
    negatives = _negatives(state, anchors, rows, generator, plan.first_step + step)
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
        negatives=None if negatives is None else negatives.vectors,
        negatives_present=None if negatives is None else negatives.present,
    )


def _identities(state: TrainingState, plan: StagePlan, rows: Tensor, sources: Tensor, step: int) -> Tensor:
    """Embeddings ``(B, D)`` that the pictures are made under: the labels', the sources' own, or between them.

    They are of length 1, unless they are word vectors, which the labels alone have.
    """
    sought: Tensor = state.embedding(rows)
    own = state.attacker.public.embeddings[sources]
    share = plan.label_share(step)
    match plan.condition:
        case "label":
            return sought
        case "image":
            return own
        case "hybrid":
            return nn.functional.normalize((1 - share) * own + share * sought, dim=1)


def _negatives(
    state: TrainingState,
    anchors: Callable[[Tensor], Tensor],
    rows: Tensor,
    generator: torch.Generator,
    number: int,
) -> Negatives | None:
    """Each image's negatives from the bank, whose snapshots are taken again where step ``number`` is due.

    They are of the label embeddings or, where those are words, of the anchors.
    """
    if state.bank is None:
        return None
    if state.bank.is_due(number):
        identities = state.embedding if state.embedding.is_identity else anchors
        state.bank.refresh(identities(torch.arange(len(state.attacker.classes))))
    return state.bank.draw(state.attacker.classes[rows], generator)


def _prior_draw(
    state: TrainingState, plan: StagePlan, rows: Tensor, generator: torch.Generator, *, null_rate: float = 0.1
) -> tuple[Tensor, Tensor, Tensor]:
    """Noise, the prior's prediction of it and the progress ``s``, on pictures of their own.

    Where LoRA trains (``own``): random public pictures under their own embeddings, which protects the generator; under
    the prompt with its initial words, where embeddings are words. Where the label embedding trains alone (``pseudo``):
    pictures that the target scores highest for the class, under the class's embedding, which is the objective of
    textual inversion.
    """
    attacker = state.attacker
    prior, public = attacker.prior, attacker.public
    own = "lora" in plan.trains or "projector" in plan.trains
    if own:
        pictures = torch.randint(len(public), (len(rows),), generator=generator)
        embeddings = public.embeddings[pictures] if state.embedding.is_identity else None
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
