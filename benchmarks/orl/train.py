"""Trains what `configs/orl.yaml` audits and audits with: a prior of public faces, a target and a judge of private ones.

Every part is skipped where its folder is finished and goes on from its last checkpoint where it was stopped.
"""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from photographs import SIZE, data_folder, grey, imagined_people, private_halves, public_folders, read
from torch import Tensor, nn

from diffaudit.inversion.generator import Generator
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.bundled import bundled_folder, fingerprint, save_network, write_card
from diffaudit.models.conditioning import IdentityProjector
from diffaudit.models.exported import exported_encoder
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.networks import build_network
from diffaudit.models.prior import DiffusionPrior
from diffaudit.training.augmentation import random_views
from diffaudit.training.autoencoder import psnr, reconstruction_loss, standardise
from diffaudit.training.bench import Bench, Recipe
from diffaudit.training.classifier import accuracy
from diffaudit.training.loop import Schedule
from diffaudit.training.pool import Pool
from diffaudit.training.prior import Dropping, LatentPool, PriorTrainer, latent_rows

HELD_OUT = (0, 9, 18, 26, 33, 39)
"""Public people whom the autoencoder never sees: two of ORL (0 .. 17), of Yale (18 .. 32) and of LFW-10 (33 .. 42)."""
IMAGINED, VIEWS = 258, 16


@dataclass(frozen=True)
class ClassifierRecipe(Recipe):
    """What classifiers need beside."""

    architecture: str
    erase: float
    smoothing: float = 0.0


CLASSIFIERS = {
    "target": ClassifierRecipe(
        43, 32, Schedule(steps=300, rate=1e-3, weight_decay=0.05, average=0.99), "residual", 0.3
    ),
    "judge": ClassifierRecipe(
        44, 32, Schedule(steps=400, rate=1e-3, weight_decay=0.05, average=0.99), "plain", 0.5, 0.05
    ),
}
RECIPES = {
    "autoencoder": Recipe(41, 16, Schedule(steps=500, rate=1e-3, average=0.99)),
    "decoder": Recipe(45, 16, Schedule(steps=300, rate=1e-3, average=0.99)),
    "prior": Recipe(42, 16, Schedule(steps=1500, rate=7e-4, average=0.99)),
    **CLASSIFIERS,
}


def make_autoencoder(shop: Bench, start: Path, public: Pool) -> None:
    """Goes on from the bundled autoencoder, which knows drawn faces only."""
    model = UnshuffleAutoencoder.from_pretrained(start / "vae").float()
    fit_autoencoder("autoencoder", model, shop, public)


def make_decoder(shop: Bench, public: Pool) -> None:
    """The decoder goes on alone, for crisper eyes: the latents, and with them the prior, stay what they are."""
    model = UnshuffleAutoencoder.from_pretrained(shop.output / "autoencoder")
    model.encoder.requires_grad_(False)
    fit_autoencoder("decoder", model, shop, public)


def fit_autoencoder(name: str, model: UnshuffleAutoencoder, shop: Bench, public: Pool) -> None:
    """Trains on views of the public photographs, half of them grey, and scores on people who were left out."""
    seen = public.of([person for person in public.labels.unique().tolist() if person not in HELD_OUT])
    unseen = public.of(HELD_OUT)
    held_out = unseen.at(torch.arange(len(unseen)))
    before = psnr(model, held_out)

    def loss(generator: torch.Generator) -> Tensor:
        images, _ = seen.draw(RECIPES[name].batch, generator)
        views = random_views(images, generator, shift=0.08, zoom=0.15, colour=0.15)
        colourless = torch.rand(len(views), generator=generator) < 0.5
        views = torch.where(colourless[:, None, None, None], grey(views), views)
        return reconstruction_loss(model, views, generator)

    seconds = shop.train(name, model, loss)
    if name == "autoencoder":
        standardise(model, public.at(torch.arange(0, len(public), 3)))
    model.save_pretrained(shop.output / name)
    after = psnr(model, held_out)
    scores = {"psnr_unseen_people_db": round(after, 2), "psnr_before_db": round(before, 2)}
    write_card(shop.output / name, card_of(shop, name, model, seconds, "public photographs", scores))
    say(f"{name}: {before:.2f} -> {after:.2f} dB on {len(unseen)} photographs of people not seen")


def make_prior(shop: Bench, bundled: Path, public: Pool, encoder: IdentityEncoder) -> None:
    """Goes on from the bundled UNet, with a fresh projector for the attacker's identity encoder, without captions."""
    recipe = RECIPES["prior"]
    autoencoder = UnshuffleAutoencoder.from_pretrained(shop.output / "decoder").eval().requires_grad_(False)
    start = DiffusionPrior.load(bundled).float()
    assert start.text is not None  # the bundled prior reads captions
    torch.manual_seed(recipe.seed)
    projector = IdentityProjector(encoder.dimension, start.unet.config.cross_attention_dim)
    start.unet.requires_grad_(True)
    prior = DiffusionPrior(autoencoder, start.unet, start.scheduler, text=start.text, projector=projector)
    pictures = imagined_people(public, 43 if shop.quick else IMAGINED, VIEWS, seed=recipe.seed)
    say(f"prior: {len(pictures)} pictures of {len(pictures) // VIEWS} people, real and imagined")
    no_words = prior.text.token_ids([""]).expand(len(pictures), -1)
    pool = LatentPool(latent_rows(prior, pictures), embedded(encoder, pictures), no_words, VIEWS)
    trainer = PriorTrainer(prior, Dropping(text=1.0, identity=0.0, both=0.1))
    seconds = shop.train("prior", trainer, partial(trainer.loss, pool, recipe.batch))
    prior.eval().save(shop.output / "prior")
    scores = {"cosine_asked_and_drawn_public": round(obedience(prior, encoder, public), 3)}
    scores |= {"cosine_of_two_public_people": round(strangers(encoder, public), 3)}
    say(f"prior: {scores}")
    card = card_of(shop, "prior", prior.unet, seconds, "public photographs", scores)
    write_card(shop.output / "prior", card | {"started_from": fingerprint(bundled)})


def make_classifier(shop: Bench, name: str) -> None:
    """A classifier of the private people from their training halves; the reference halves score it."""
    recipe = CLASSIFIERS[name]
    training, reference = (read([half]) for half in private_halves(shop.data))
    people = int(training.labels.max()) + 1
    torch.manual_seed(recipe.seed)
    network = build_network(recipe.architecture, people)

    def loss(generator: torch.Generator) -> Tensor:
        images, rows = training.draw(recipe.batch, generator)
        views = grey(random_views(images, generator, shift=0.08, zoom=0.12, colour=0.2, erase=recipe.erase))
        return nn.functional.cross_entropy(network(views), training.labels[rows], label_smoothing=recipe.smoothing)

    seconds = shop.train(name, network, loss)
    folder = shop.output / name
    save_network(network, folder, {})
    hits = accuracy(network, reference.at(torch.arange(len(reference))), reference.labels)
    scores = {"accuracy_reference_half": round(hits, 4), "photographs": len(reference)}
    data = f"training halves of {people} private ORL identities, {len(training)} photographs"
    write_card(folder, card_of(shop, name, network, seconds, data, scores) | {"outputs": people})
    say(f"{name}: {100 * hits:.1f} % of {len(reference)} photographs of the reference halves")


@torch.no_grad()
def embedded(encoder: IdentityEncoder, images: Tensor) -> Tensor:
    """``(N, D)`` embeddings of byte images."""
    return torch.cat([encoder(part.float() / 255) for part in images.split(64)])


@torch.no_grad()
def obedience(prior: DiffusionPrior, encoder: IdentityEncoder, public: Pool) -> float:
    """Mean cosine between the identity asked for (a public person's mean) and what the encoder sees in the sample."""
    embeddings = embedded(encoder, public.images)
    people = public.labels.unique()
    asked = nn.functional.normalize(torch.stack([embeddings[public.labels == one].mean(0) for one in people]), dim=1)
    generator = torch.Generator().manual_seed(0)
    latents = prior.encode(public.draw(len(people), generator)[0])
    noise = torch.randn(latents.shape, generator=generator)
    clean = Generator(prior).rollout(latents, noise, asked, steps=10, strength=0.9, guidance_scale=1.5)
    return float((encoder(prior.decode(clean).clamp(0, 1)) * asked).sum(1).mean())


def strangers(encoder: IdentityEncoder, public: Pool) -> float:
    """Mean cosine between photographs of two different public people: what no obedience at all would reach."""
    embeddings = embedded(encoder, public.images)
    different = public.labels[:, None] != public.labels[None]
    return float((embeddings @ embeddings.T)[different].mean())


def card_of(
    shop: Bench, name: str, module: nn.Module, seconds: float, data: str, scores: dict[str, float]
) -> dict[str, Any]:
    """How a part was made and what it scores."""
    architecture = CLASSIFIERS[name].architecture if name in CLASSIFIERS else type(module).__name__
    return shop.card(name, module, seconds, architecture=architecture, size=SIZE, data=data, scores=scores)


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def main() -> None:
    """Makes every part that is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data ($DIFFAUDIT_SHARED_DATA, else ../shared/data)")
    parser.add_argument("--output", type=Path, default=Path("runs/orl-models"))
    parser.add_argument("--start", type=Path, help="a prior in diffusers' layout to go on from (default: the bundled)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps each: a test of the machinery")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    start = arguments.start or bundled_folder("prior")
    shop = Bench("orl", data_folder(arguments.data), arguments.output, RECIPES, arguments.quick, say)
    shop.link_data()
    for name in ("target", "judge"):
        if not shop.finished(name):
            make_classifier(shop, name)
    public = read(public_folders(shop.data))
    say(f"public: {len(public)} photographs of {int(public.labels.max()) + 1} people")
    if not shop.finished("autoencoder"):
        make_autoencoder(shop, start, public)
    if not shop.finished("decoder"):
        make_decoder(shop, public)
    if not shop.finished("prior"):
        encoder = exported_encoder(shop.data / "models/face/mobileface.pt2", size=112, allow_code=False)
        make_prior(shop, start, public, encoder)


if __name__ == "__main__":
    main()
