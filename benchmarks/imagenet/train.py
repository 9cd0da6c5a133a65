"""Trains the prior of `configs/imagenet.yaml` on the very photographs that are attacked, under their classes' words.

It goes on from its last checkpoint where it was stopped. The prior has SEEN the photographs: what an inversion by it
loses is less than for a picture that nobody has seen.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from photographs import SIZE, data_folder, photographs, views
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffaudit.data.labelled import Labelled
from diffaudit.models.bundled import fingerprint, write_card
from diffaudit.models.exported_autoencoder import ExportedAutoencoder, exported_autoencoder
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.latents import inverted, reconstruction_psnr
from diffaudit.perturbation.plans import PathPlan
from diffaudit.perturbation.rendering import render
from diffaudit.training.bench import Bench, Recipe
from diffaudit.training.loop import Schedule
from diffaudit.training.prior import Dropping, LatentPool, PriorTrainer, untrained_prior
from diffaudit.training.tokenizers import subword_tokenizer

MODELS = Path("runs/imagenet-models")
RECIPES = {"prior": Recipe(71, 16, Schedule(steps=3000, rate=1e-3, warmup=200, average=0.999))}
VIEWS, QUICK_VIEWS = 8, 2
TEMPLATE = "a photo of a {label}"
VOCABULARY, PROMPT_TOKENS = 1536, 32
"""The longest prompt with two labels has 26 tokens."""
SIDE = SIZE // 8
WIDTHS = (96, 160)
PATH = PathPlan(steps=20, start=15, guidance_scale=1.0)
"""The way on which the inversion is scored: that of the settings."""
SCORED = 16
"""Photographs on which the inversion is scored."""
ENCODED = 16
"""Views that are encoded at once."""
LIMITS = (
    "It has seen the photographs that are attacked, so its inversion of them is better than of others. Its autoencoder "
    "was trained on other pictures."
)


def captions(names: Sequence[str]) -> list[str]:
    """What the prior is told of each class.

    >>> captions(["red fox"])
    ['a photo of a red fox']
    """
    return [TEMPLATE.format(label=name) for name in names]


def new_prior(autoencoder: ExportedAutoencoder, classes: Sequence[str], seed: int) -> DiffusionPrior:
    """An untrained prior whose tokenizer has read the names of all classes, in pairs."""
    pairs = [f"{caption} and {rival}" for caption, rival in zip(captions(classes), reversed(classes), strict=True)]
    tokenizer = subword_tokenizer(pairs, size=VOCABULARY, length=PROMPT_TOKENS)
    torch.manual_seed(seed)
    channels = autoencoder.config.latent_channels
    return untrained_prior(autoencoder, tokenizer, latent_channels=channels, side=SIDE, widths=WIDTHS)


@torch.no_grad()
def raw_latents(bench: Bench, autoencoder: ExportedAutoencoder, count: int) -> Tensor:
    """``(N * count, c, h, w)``: the autoencoder's latents of all views, computed once."""
    path = bench.work / f"latents-{count}.safetensors"
    if not path.exists():
        pictures = views(bench.data, count, seed=RECIPES["prior"].seed)
        bench.say(f"prior: {len(pictures)} views are being encoded")
        latents = torch.cat([autoencoder.encode(part.float() / 127.5 - 1) for part in pictures.split(ENCODED)])
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        save_file({"latents": latents}, unfinished)
        unfinished.replace(path)
    return load_file(path)["latents"]


def make_prior(bench: Bench) -> None:
    """Trains, saves and scores the prior."""
    recipe = RECIPES["prior"]
    shown = photographs(bench.data)
    count = QUICK_VIEWS if bench.quick else VIEWS
    raw = raw_latents(bench, opened_autoencoder(bench.data), count)
    shift, scale = round(float(raw.mean()), 4), round(float(1 / raw.std()), 4)
    prior = new_prior(opened_autoencoder(bench.data, shift=shift, scale=scale), shown.classes, recipe.seed)
    trainer = PriorTrainer(prior, Dropping(text=0.1, identity=0.0, both=0.0))
    ids = trainer.text.token_ids(captions([shown.classes[label] for label in shown.labels.tolist()]))
    pool = LatentPool((raw - shift) * scale, None, ids.repeat_interleave(count, 0), count)
    seconds = bench.train("prior", trainer, partial(trainer.loss, pool, recipe.batch))
    prior.eval().requires_grad_(False).save(bench.output / "prior")
    scores = {"final_loss": round(mean_loss(trainer, pool, recipe), 4), **inversion_scores(prior, shown)}
    bench.say(f"prior: {scores}")
    card = bench.card(
        "prior",
        trainer,
        seconds,
        architecture=type(prior.unet).__name__,
        size=SIZE,
        data=f"{len(shown.labels)} ImageNet photographs x {count} views: the very photographs that are attacked",
        scores=scores,
    )
    marks = {"fingerprint": fingerprint(bench.output / "prior"), "autoencoder": prior.autoencoder.fingerprints}
    write_card(bench.output / "prior", card | {"limits": LIMITS} | marks)


def opened_autoencoder(data: Path, *, shift: float = 0.0, scale: float = 1.0) -> ExportedAutoencoder:
    """TAEF2, with the decoder that does not clamp."""
    encoder, decoder = (data / "models" / "autoencoder" / f"taef2_{name}.pt2" for name in ("encoder", "decoder_raw"))
    return exported_autoencoder(encoder, decoder, allow_code=False, shift=shift, scale=scale)


@torch.no_grad()
def mean_loss(trainer: PriorTrainer, pool: LatentPool, recipe: Recipe, batches: int = 16) -> float:
    """The loss of the averaged weights over fixed draws: what stopping and going on does not change."""
    draws = [torch.Generator().manual_seed(number) for number in range(batches)]
    return float(torch.stack([trainer.loss(pool, recipe.batch, draw) for draw in draws]).mean())


@torch.no_grad()
def inversion_scores(prior: DiffusionPrior, shown: Labelled) -> dict[str, float]:
    """What the autoencoder alone and the way to the latent and back cost, in dB, on the first photographs."""
    images = shown.images[:SCORED].float() / 255
    latents = prior.encode(images)
    words = captions([shown.classes[label] for label in shown.labels[:SCORED].tolist()])
    condition = prior.condition(None, len(images), words)
    middle = inverted(prior, latents, condition, steps=PATH.steps, start=PATH.start)[-1]
    back = render(prior, middle, condition, (None,) * (PATH.steps - PATH.start), PATH).image
    rebuilt = {"autoencoder_psnr_db": prior.decode(latents), "inversion_psnr_of_seen_pictures_db": back}
    return {
        name: round(float(reconstruction_psnr(images, found.clamp(0, 1)).mean()), 2) for name, found in rebuilt.items()
    }


def say(text: str) -> None:
    """One line, at once."""
    print(text, flush=True)


def main() -> None:
    """Makes the prior if it is not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the data ($DIFFAUDIT_SHARED_DATA, else ../shared/data)")
    parser.add_argument("--output", type=Path, help=f"{MODELS}, or {MODELS}-quick for a trial")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="a few steps: a test of the machinery")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    output = arguments.output or (MODELS.with_name(f"{MODELS.name}-quick") if arguments.quick else MODELS)
    bench = Bench("imagenet", data_folder(arguments.data), output, RECIPES, arguments.quick, say)
    bench.link_data()
    if bench.finished("prior"):
        say(f"prior: finished, see {output / 'prior' / 'card.json'}")
    else:
        make_prior(bench)


if __name__ == "__main__":
    main()
