"""Remakes the bundled models: `diffaudit train all`. Every recipe is a few lines of data; every model gets a card."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffaudit.data.captions import VOCABULARY, captions
from diffaudit.data.faces import photographs
from diffaudit.data.rendering import render_faces
from diffaudit.errors import InvalidSetting
from diffaudit.events import Event
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.bundled import fingerprint, load_network, save_network, write_card
from diffaudit.models.networks import Network, build_network
from diffaudit.models.prior import DiffusionPrior
from diffaudit.settings import Sampling
from diffaudit.training import populations
from diffaudit.training.attributes import attribute_targets, correlation, regression_loss
from diffaudit.training.autoencoder import batch_loss, psnr, standardise
from diffaudit.training.classifier import accuracy, classification_loss
from diffaudit.training.encoder import EncoderTrainer, centre, verification_auc
from diffaudit.training.loop import Schedule, fit
from diffaudit.training.pool import Pool, rendered_pool
from diffaudit.training.prior import LatentPool, PriorTrainer, drawn_pictures, latent_rows, small_prior

SIZE = 64
EMBEDDING = 128
PER_IDENTITY = 16
QUICK_DIVISOR = 250


@dataclass(frozen=True)
class Recipe:
    """How one bundled model is made: what it is, from which seed, how long and how fast it trains."""

    kind: str
    architecture: str
    seed: int
    batch: int
    schedule: Schedule
    pool_seed: int = 111
    pool_per_identity: int = PER_IDENTITY
    erase: float = 0.0
    smoothing: float = 0.0
    centred: bool = False
    shipped: bool = True
    """False for what only goes into another model."""


def _schedule(steps: int, rate: float = 2e-3, average: float = 0.998, **more: float) -> Schedule:
    return Schedule(steps=steps, rate=rate, average=average, **{"weight_decay": 0.05, **more})  # type: ignore[arg-type]


RECIPES: Mapping[str, Recipe] = {
    "autoencoder": Recipe(
        "autoencoder", "unshuffle", 1, 32, _schedule(2500, average=0.999, weight_decay=0.01), shipped=False
    ),
    "decoder": Recipe(
        "decoder", "unshuffle", 2, 32, _schedule(1200, 1e-3, average=0.999, weight_decay=0.01), shipped=False
    ),
    "identity": Recipe("encoder", "residual", 11, 32, _schedule(3000)),
    "target": Recipe("classifier", "residual", 21, 32, _schedule(1500), 1001, 48),
    "attributes": Recipe("attributes", "plain", 31, 32, _schedule(1500)),
    "judge-plain": Recipe("classifier", "plain", 22, 32, _schedule(2000), 2002, 96, 0.3, 0.05),
    "judge-depthwise": Recipe("classifier", "depthwise", 23, 32, _schedule(1600), 3003, 96, 0.3, 0.05),
    "judge-identity": Recipe("encoder", "depthwise", 12, 32, _schedule(2000), erase=0.3, centred=True),
    "judge-factors": Recipe("factors", "plain", 32, 32, _schedule(1500)),
    "prior": Recipe("prior", "unet", 5, 32, _schedule(6600, 1.5e-3, 0.999, warmup=300, weight_decay=0.01)),
}
BUNDLED = tuple(RECIPES)
"""Every model in the order in which they are made. The prior comes last: it needs the autoencoder and the identity
encoder, takes the decoder, and is scored by the judges."""


@dataclass(frozen=True, eq=False)
class Workshop:
    """Where models are made: shipped ones in ``output/<name>``, all else in ``output/.work``.

    That is checkpoints, pictures, and the autoencoder and decoder that go into the prior. A quick workshop has a work
    folder of its own, so that its checkpoints are never gone on from.
    """

    output: Path
    quick: bool
    watch: Callable[[Event], None]

    @property
    def work(self) -> Path:
        return self.output / ".work" / "quick" if self.quick else self.output / ".work"

    def folder(self, name: str) -> Path:
        """Where the model ``name`` is written."""
        return (self.output if RECIPES[name].shipped else self.work) / name

    def finished(self, name: str) -> Path | None:
        """The folder that holds the model ``name``, scored and with its card; None where it is still to be made."""
        for folder in (self.output / name, self.work / name):
            card = folder / "card.json"
            # Until the scores are there a card is empty; what a quick workshop made counts for quick ones alone.
            if card.exists() and json.loads(card.read_text()).get("quick") in (False, self.quick):
                return folder
        return None

    def checkpoint(self, name: str) -> Path:
        return self.work / f"{name}.ck"

    @cached_property
    def public_pool(self) -> Pool:
        """The pictures of the public identities that everything public is trained on."""
        identities = populations.public_identities()[: 64 if self.quick else None]
        cache = None if self.quick else self.work / "public.npy"
        return rendered_pool(identities, PER_IDENTITY, seed=111, cache=cache)

    def train(self, name: str, module: nn.Module, loss: Callable[[torch.Generator], Tensor]) -> float:
        """Fits ``module`` by the recipe of ``name``; returns the seconds."""
        recipe = RECIPES[name]
        schedule = recipe.schedule
        if self.quick:
            schedule = Schedule(**asdict(schedule) | {"steps": max(2, schedule.steps // QUICK_DIVISOR)})
        return fit(
            module,
            loss,
            schedule,
            seed=recipe.seed,
            checkpoint=self.checkpoint(name),
            progress=lambda step, steps, value: self.watch(Event(name, step, steps, {"loss": value})),
        )

    def card(self, name: str, module: nn.Module, seconds: float, **scores: Any) -> dict[str, Any]:
        """What every card says: how the model was made, how long it took, what it scores."""
        recipe = RECIPES[name]
        return {
            "name": name,
            "kind": recipe.kind,
            "architecture": recipe.architecture,
            "size": SIZE,
            "data": "procedural faces rendered by diffaudit; no real person",
            "seed": recipe.seed,
            "batch": recipe.batch,
            "schedule": asdict(recipe.schedule),
            "parameters": sum(parameter.numel() for parameter in module.parameters()),
            "seconds": round(seconds),
            "command": f"diffaudit train {name}",
            "quick": self.quick,
            "scores": scores,
        }


def train_bundle(
    names: Sequence[str], output: Path, *, quick: bool = False, on_event: Callable[[Event], None] | None = None
) -> None:
    """Makes the models ``names`` (``all``: every one) in ``output``; those that are finished already are left alone.

    A stopped training goes on from its last checkpoint, and one that had come to its end is only scored and saved.
    ``quick`` trains for a few steps only: a test of the machinery.

    Raises:
        InvalidSetting: a name is not in :data:`BUNDLED`.
    """
    wanted = BUNDLED if "all" in names else tuple(names)
    for name in wanted:
        if name not in RECIPES:
            raise InvalidSetting("model", f"be `all` or one of {', '.join(BUNDLED)}", name)
    shop = Workshop(output, quick, on_event or (lambda event: None))
    for name in BUNDLED:
        if name in wanted and shop.finished(name) is None:
            _make(name, shop)


def _make(name: str, shop: Workshop) -> None:
    recipe = RECIPES[name]
    makers: Mapping[str, Callable[[str, Workshop], None]] = {
        "autoencoder": _make_autoencoder,
        "decoder": _make_decoder,
        "encoder": _make_encoder,
        "classifier": _make_classifier,
        "attributes": _make_regressor,
        "factors": _make_regressor,
        "prior": _make_prior,
    }
    torch.manual_seed(recipe.seed)
    makers[recipe.kind](name, shop)


def unseen_pictures(per_identity: int) -> Pool:
    """Photographs of identities that no model was trained on."""
    return rendered_pool(populations.unseen_identities(), per_identity, seed=7)


def _make_autoencoder(name: str, shop: Workshop) -> None:
    model = UnshuffleAutoencoder()
    pool = shop.public_pool
    seconds = shop.train(name, model, partial(batch_loss, model, pool, RECIPES[name].batch))
    standardise(model, pool.at(torch.arange(0, len(pool), 64)))
    _finish_autoencoder(name, model, shop, seconds)


def _make_decoder(name: str, shop: Workshop) -> None:
    """The decoder goes on alone: the latents, and with them the prior, stay what they are."""
    model = UnshuffleAutoencoder.from_pretrained(_finished(shop, "autoencoder"))
    model.encoder.requires_grad_(False)
    seconds = shop.train(name, model, partial(batch_loss, model, shop.public_pool, RECIPES[name].batch))
    _finish_autoencoder(name, model, shop, seconds)


def _finish_autoencoder(name: str, model: UnshuffleAutoencoder, shop: Workshop, seconds: float) -> None:
    model.save_pretrained(shop.folder(name))
    unseen = unseen_pictures(2)
    score = psnr(model, unseen.at(torch.arange(len(unseen))))
    write_card(shop.folder(name), shop.card(name, model, seconds, psnr_unseen_db=round(score, 2)))


def _make_encoder(name: str, shop: Workshop) -> None:
    recipe, pool = RECIPES[name], shop.public_pool
    identities = populations.public_identities()[: int(pool.labels.max()) + 1]
    trainer = EncoderTrainer(recipe.architecture, EMBEDDING, identities.shape[1])
    seconds = shop.train(name, trainer, partial(trainer.loss, pool, identities, recipe.batch, recipe.erase))
    if recipe.centred:
        centre(trainer.encoder, pool.at(torch.arange(0, len(pool), 32)))
    save_network(trainer.encoder, shop.folder(name), {})
    unseen = unseen_pictures(8)
    auc = verification_auc(trainer.encoder, unseen.at(torch.arange(len(unseen))), unseen.labels)
    card = shop.card(name, trainer.encoder, seconds, verification_auc_unseen=round(auc, 5))
    write_card(shop.folder(name), card | {"outputs": EMBEDDING})


def _make_classifier(name: str, shop: Workshop) -> None:
    recipe = RECIPES[name]
    identities = populations.private_identities()
    per_identity = 2 if shop.quick else recipe.pool_per_identity
    network = build_network(recipe.architecture, len(identities))

    @cache  # rendered at the first step: a finished training takes none
    def pool() -> Pool:
        return rendered_pool(identities, per_identity, seed=recipe.pool_seed)

    def loss(generator: torch.Generator) -> Tensor:
        return classification_loss(
            network, pool(), recipe.batch, generator, erase=recipe.erase, smoothing=recipe.smoothing
        )

    seconds = shop.train(name, network, loss)
    save_network(network, shop.folder(name), {})
    faces, labels = photographs(identities, 20, seed=888)
    held_out = render_faces(faces)
    twin = (labels < populations.TWIN_PAIRS) | (labels >= len(identities) - populations.TWIN_PAIRS)
    scores = {
        "accuracy_held_out": round(accuracy(network, held_out, labels), 4),
        "accuracy_near_twins": round(accuracy(network, held_out[twin], labels[twin]), 4),
        "training_pictures": len(identities) * per_identity,
    }
    write_card(shop.folder(name), shop.card(name, network, seconds, **scores) | {"outputs": len(identities)})


def _make_regressor(name: str, shop: Workshop) -> None:
    recipe, pool = RECIPES[name], shop.public_pool
    read = attribute_targets if recipe.kind == "attributes" else lambda faces: faces.identity
    targets = read(pool.faces)
    mean, spread = targets.mean(0), targets.std(0)
    network = build_network(recipe.architecture, targets.shape[1])
    loss = partial(regression_loss, network, pool, (targets - mean) / spread, recipe.batch)
    seconds = shop.train(name, network, loss)
    with torch.no_grad():  # the head answers in the factors' own units
        network.head.weight.mul_(spread[:, None])
        network.head.bias.mul_(spread).add_(mean)
    save_network(network, shop.folder(name), {})
    unseen = unseen_pictures(4)
    images, known = unseen.at(torch.arange(len(unseen))), read(unseen.faces)
    found = correlation(network, images, known)
    scores = {
        "correlation_unseen": [round(float(value), 3) for value in found],
        "mean_absolute_error_unseen": _errors(network, images, known),
    }
    card = shop.card(name, network, seconds, **scores) | {"outputs": targets.shape[1], "spread": spread.tolist()}
    write_card(shop.folder(name), card)


@torch.no_grad()
def _errors(network: Network, images: Tensor, known: Tensor) -> list[float]:
    found = torch.cat([network(part) for part in images.split(256)])
    return [round(float(value), 3) for value in (found - known).abs().mean(0)]


def _make_prior(name: str, shop: Workshop) -> None:
    recipe = RECIPES[name]
    autoencoder = UnshuffleAutoencoder.from_pretrained(_finished(shop, "autoencoder")).eval().requires_grad_(False)
    encoder, _ = load_network(_finished(shop, "identity"))
    torch.manual_seed(recipe.seed)
    prior = small_prior(autoencoder, vocabulary=VOCABULARY, embedding_dim=EMBEDDING)
    trainer = PriorTrainer(prior)

    @cache  # at the first step, for the same reason
    def latents() -> LatentPool:
        pool = shop.public_pool
        token_ids = trainer.text.token_ids(captions(pool.faces))
        return LatentPool(latent_rows(prior, pool.images), _embedded(encoder, pool.images), token_ids, PER_IDENTITY)

    seconds = shop.train(name, trainer, lambda generator: trainer.loss(latents(), recipe.batch, generator))
    finish_prior(name, shop, prior, seconds)


def finish_prior(name: str, shop: Workshop, prior: DiffusionPrior, seconds: float) -> None:
    """Saves the prior in float16 with the best decoder there is, scores it as saved, and writes its card."""
    folder, decoder = shop.folder(name), shop.finished("decoder")
    if decoder is not None:
        prior.autoencoder = UnshuffleAutoencoder.from_pretrained(decoder)
    prior.half().save(folder)
    scores = {"fingerprint": fingerprint(folder)} | _oracle_scores(shop, DiffusionPrior.load(folder))
    write_card(folder, shop.card(name, prior.unet, seconds, **scores))


def _oracle_scores(shop: Workshop, prior: DiffusionPrior) -> dict[str, float]:
    """How often the judges see each private person in a picture drawn under the true mean embedding of the person.

    The ceiling of every attack with this prior. Empty where no judge is finished.
    """
    judges = [name for name, recipe in RECIPES.items() if name.startswith("judge-") and recipe.kind == "classifier"]
    folders = [folder for folder in map(shop.finished, judges) if folder is not None]
    if not folders:
        return {}
    people, how = populations.private_identities(), Sampling()
    encoder, _ = load_network(_finished(shop, "identity"))
    known = rendered_pool(people, 8, seed=8)
    embeddings = nn.functional.normalize(_embedded(encoder, known.images).view(len(people), 8, -1).mean(1), dim=1)
    sources = rendered_pool(populations.public_identities()[: len(people)], 1, seed=9)
    drawn = drawn_pictures(
        prior,
        sources.at(sources.labels),
        embeddings,
        steps=how.steps,
        strength=how.strength,
        guidance_scale=how.guidance_scale,
        seed=1,
    )
    votes = [accuracy(load_network(folder)[0], drawn.float() / 255, sources.labels) for folder in folders]
    return {"oracle_judge_accuracy": round(sum(votes) / len(votes), 4)}


@torch.no_grad()
def _embedded(encoder: Network, images: Tensor) -> Tensor:
    """Unit embeddings ``(N, D)`` of byte images."""
    return torch.cat([nn.functional.normalize(encoder(part.float() / 255), dim=1) for part in images.split(256)])


def _finished(shop: Workshop, name: str) -> Path:
    if shop.finished(name) is None:
        _make(name, shop)
    return shop.finished(name) or shop.folder(name)
