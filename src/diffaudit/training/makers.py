"""How each kind of bundled model is made: trained by its recipe, saved, scored on people it has never seen."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from diffaudit.data.captions import CLEAR_HAIR, HAIR_LABELS, VOCABULARY, captions, hair_clearness, hair_labels
from diffaudit.data.faces import photographs
from diffaudit.data.rendering import render_faces
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.bundled import fingerprint, load_network, save_network, write_card
from diffaudit.models.networks import Network, build_network
from diffaudit.models.prior import DiffusionPrior
from diffaudit.settings import Sampling
from diffaudit.training import populations, recipes
from diffaudit.training.attributes import attribute_targets, correlation, regression_loss
from diffaudit.training.autoencoder import batch_loss, psnr, standardise
from diffaudit.training.classifier import accuracy, classification_loss
from diffaudit.training.encoder import EncoderTrainer, discriminate, verification_auc
from diffaudit.training.pool import Pool, RenderedPool, even_rows, rendered_pool
from diffaudit.training.prior import LatentPool, PriorTrainer, drawn_pictures, latent_rows, small_prior
from diffaudit.training.recipes import EMBEDDING
from diffaudit.training.workshop import Workshop


def make(name: str, shop: Workshop) -> None:
    """Trains the model ``name``, or goes on with it, and saves it with its card; what it needs is made first."""
    recipe = recipes.RECIPES[name]
    makers: Mapping[str, Callable[[str, Workshop], None]] = {
        "autoencoder": _make_autoencoder,
        "decoder": _make_decoder,
        "encoder": _make_encoder,
        "classifier": _make_classifier,
        "words": _make_reader,
        "attributes": _make_regressor,
        "factors": _make_regressor,
        "prior": _make_prior,
    }
    torch.manual_seed(recipe.seed)
    makers[recipe.kind](name, shop)


def unseen_pictures(per_identity: int) -> RenderedPool:
    """Photographs of identities that no model was trained on."""
    return rendered_pool(populations.unseen_identities(), per_identity, seed=7)


def _make_autoencoder(name: str, shop: Workshop) -> None:
    model = UnshuffleAutoencoder()
    pool = shop.public_pool
    seconds = shop.train(name, model, partial(batch_loss, model, pool, recipes.RECIPES[name].batch))
    standardise(model, pool.at(torch.arange(0, len(pool), 64)))
    _finish_autoencoder(name, model, shop, seconds)


def _make_decoder(name: str, shop: Workshop) -> None:
    """The decoder goes on alone: the latents, and with them the prior, stay what they are."""
    model = UnshuffleAutoencoder.from_pretrained(_finished(shop, "autoencoder"))
    model.encoder.requires_grad_(False)
    seconds = shop.train(name, model, partial(batch_loss, model, shop.public_pool, recipes.RECIPES[name].batch))
    _finish_autoencoder(name, model, shop, seconds)


def _finish_autoencoder(name: str, model: UnshuffleAutoencoder, shop: Workshop, seconds: float) -> None:
    model.save_pretrained(shop.folder(name))
    unseen = unseen_pictures(2)
    score = psnr(model, unseen.at(torch.arange(len(unseen))))
    write_card(shop.folder(name), shop.card(name, model, seconds, psnr_unseen_db=round(score, 2)))


def _make_encoder(name: str, shop: Workshop) -> None:
    recipe, pool = recipes.RECIPES[name], shop.public_pool
    identities = populations.public_identities()[: int(pool.labels.max()) + 1]
    trainer = EncoderTrainer(recipe.architecture, EMBEDDING, identities.shape[1])
    seconds = shop.train(name, trainer, partial(trainer.loss, pool, identities, recipe.batch, recipe.erase))
    discriminate(trainer.encoder, pool.images, pool.labels)
    save_network(trainer.encoder, shop.folder(name), {})
    unseen = unseen_pictures(8)
    auc = verification_auc(trainer.encoder, unseen.at(torch.arange(len(unseen))), unseen.labels)
    card = shop.card(name, trainer.encoder, seconds, verification_auc_unseen=round(auc, 5))
    write_card(shop.folder(name), card | {"outputs": EMBEDDING})


def _make_classifier(name: str, shop: Workshop) -> None:
    recipe = recipes.RECIPES[name]
    identities = populations.private_identities()
    per_identity = 2 if shop.quick else recipe.pool_per_identity
    network = build_network(recipe.architecture, len(identities))

    @cache  # rendered at the first step: a finished training takes none
    def pool() -> RenderedPool:
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


def _make_reader(name: str, shop: Workshop) -> None:
    """A classifier of words for hair, taught by people whose hair is clear, as many of every label."""
    recipe = recipes.RECIPES[name]
    network = build_network(recipe.architecture, len(HAIR_LABELS))
    per_label, per_identity = (2, 2) if shop.quick else (recipes.PER_LABEL, recipe.pool_per_identity)

    @cache
    def pool() -> Pool:
        people = populations.public_identities()
        people = people[hair_clearness(people) >= CLEAR_HAIR]
        people = people[even_rows(hair_labels(people), per_label)]
        rendered = rendered_pool(people, per_identity, seed=recipe.pool_seed)
        return Pool(rendered.images, hair_labels(rendered.faces.identity))

    seconds = shop.train(name, network, lambda generator: classification_loss(network, pool(), recipe.batch, generator))
    save_network(network, shop.folder(name), {})
    held_out = rendered_pool(populations.unseen_crowd(), 4, seed=7)
    identity, images = held_out.faces.identity, held_out.at(torch.arange(len(held_out)))
    labels, clear = hair_labels(identity), hair_clearness(identity) >= CLEAR_HAIR
    scores = {
        "accuracy_held_out": round(accuracy(network, images[clear], labels[clear]), 4),
        "accuracy_with_unclear_hair": round(accuracy(network, images, labels), 4),
        "training_pictures": len(HAIR_LABELS) * per_label * per_identity,
    }
    card = shop.card(name, network, seconds, **scores) | {"outputs": len(HAIR_LABELS), "labels": HAIR_LABELS}
    write_card(shop.folder(name), card)


def _make_regressor(name: str, shop: Workshop) -> None:
    recipe, pool = recipes.RECIPES[name], shop.public_pool
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
    recipe = recipes.RECIPES[name]
    autoencoder = UnshuffleAutoencoder.from_pretrained(_finished(shop, "autoencoder")).eval().requires_grad_(False)
    encoder, _ = load_network(_finished(shop, "identity"))
    torch.manual_seed(recipe.seed)
    prior = small_prior(autoencoder, vocabulary=VOCABULARY, embedding_dim=EMBEDDING)
    trainer = PriorTrainer(prior)

    @cache  # at the first step, for the same reason
    def examples() -> LatentPool:
        pool = shop.public_pool
        token_ids = trainer.text.token_ids(captions(pool.faces))
        latents, embeddings = latent_rows(prior, pool.images), _embedded(encoder, pool.images)
        return LatentPool(latents, embeddings, token_ids, recipes.PER_IDENTITY)

    seconds = shop.train(name, trainer, lambda generator: trainer.loss(examples(), recipe.batch, generator))
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
    classifiers = [name for name, recipe in recipes.RECIPES.items() if recipe.kind == "classifier"]
    judges = [name for name in classifiers if name.startswith("judge-")]
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
        make(name, shop)
    return shop.finished(name) or shop.folder(name)
