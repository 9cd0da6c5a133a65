"""Another hundred people, with a target and a judge of their own: where hyper-parameters are chosen.

The study reports on the bundled people; nothing of it may be tuned on them. Whatever is chosen is chosen here.

Command:  python benchmarks/ablation/people.py --output runs/tuning
Takes:    about 10 minutes on one CPU core
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from diffaudit.data.faces import photographs, sample_identities
from diffaudit.data.rendering import render_faces
from diffaudit.models.bundled import save_network
from diffaudit.models.networks import build_network
from diffaudit.training.classifier import accuracy, classification_loss
from diffaudit.training.loop import fit
from diffaudit.training.pool import rendered_pool
from diffaudit.training.recipes import RECIPES, SIZE

PEOPLE, SEED = 100, 909
"""Drawn like the bundled people, with a seed that nothing else uses; no near-twins among them."""
MODELS = {"target": "target", "judge": "judge-plain"}
"""What is made, each by the recipe of a bundled model."""


def main() -> None:
    """Writes the two models and eight held-out pictures of each person."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("runs/tuning"))
    output: Path = parser.parse_args().output
    identities = sample_identities(PEOPLE, seed=SEED)
    faces, labels = photographs(identities, 8, seed=SEED + 1)
    held_out = render_faces(faces)
    for number, (image, label) in enumerate(zip((held_out * 255).round().byte(), labels.tolist(), strict=True)):
        path = output / "private" / f"{label:03d}" / f"{number % 8}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)
    for name, recipe_name in MODELS.items():
        recipe = RECIPES[recipe_name]
        torch.manual_seed(recipe.seed + SEED)
        network = build_network(recipe.architecture, PEOPLE)
        pool = rendered_pool(identities, recipe.pool_per_identity, seed=recipe.pool_seed + SEED)
        loss = partial(classification_loss, network, pool, recipe.batch, erase=recipe.erase, smoothing=recipe.smoothing)
        seconds = fit(
            network,
            loss,
            recipe.schedule,
            seed=recipe.seed + SEED,
            checkpoint=output / f"{name}.ck",
            progress=lambda step, steps, value: None,
        )
        score = accuracy(network, held_out, labels)
        card = {"architecture": recipe.architecture, "outputs": PEOPLE, "size": SIZE, "accuracy_held_out": score}
        save_network(network, output / name, card)
        print(f"{name}: {score:.3f} of held-out pictures, {seconds:.0f} s", flush=True)


if __name__ == "__main__":
    main()
