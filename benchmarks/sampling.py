"""Prints what strength and guidance of the sampler do to identity, on people who are neither public nor private.

The defaults of `settings.Sampling` are chosen by this table, so that no private person has a say in them. Each picture
is drawn under the mean embedding of eight photographs of an unseen person and judged by the nearest mean embedding of
the *judges'* identity encoder. Spread is the mean distance between the embeddings of one person's pictures.
"""

import argparse
import itertools
from pathlib import Path

import torch

from diffaudit.build import build_encoder
from diffaudit.models.bundled import bundled_folder
from diffaudit.models.nearest_mean import mean_per_class, nearest_mean_classifier
from diffaudit.models.prior import DiffusionPrior
from diffaudit.settings import TrainedModel
from diffaudit.training.pool import rendered_pool
from diffaudit.training.populations import public_identities, unseen_identities
from diffaudit.training.prior import drawn_pictures


@torch.no_grad()
def main() -> None:
    """Print one line per setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, help="what `diffaudit train` wrote (default: the bundled models)")
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--each", type=int, default=2)
    parser.add_argument("--steps", type=int, nargs="+", default=[10])
    parser.add_argument("--strength", type=float, nargs="+", default=[0.8, 0.9, 1.0])
    parser.add_argument("--guidance", type=float, nargs="+", default=[1.5, 3.0, 4.5, 6.0])
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    models = arguments.models or bundled_folder("prior").parent
    prior = DiffusionPrior.load(models / "prior")
    encoder, judge = (build_encoder(TrainedModel(folder=models / name)) for name in ("identity", "judge-identity"))
    people = rendered_pool(unseen_identities()[: arguments.people], 8, seed=17)
    recogniser = nearest_mean_classifier(judge, people.images, people.labels)
    embeddings = torch.cat([encoder(part.float() / 255) for part in people.images.split(256)])
    labels = torch.arange(arguments.people).repeat_interleave(arguments.each)
    asked = mean_per_class(embeddings, people.labels)[labels]
    sources = rendered_pool(public_identities()[: len(labels)], 1, seed=18).images.float() / 255
    print(f"{len(labels)} pictures of {arguments.people} unseen people; chance is {100 / arguments.people:.1f} %")
    for steps, strength, scale in itertools.product(arguments.steps, arguments.strength, arguments.guidance):
        drawn = torch.cat(
            [
                drawn_pictures(prior, *part, steps=steps, strength=strength, guidance_scale=scale, seed=number).float()
                / 255
                for number, part in enumerate(zip(sources.split(50), asked.split(50), strict=True))
            ]
        )
        hits = (torch.cat([recogniser(part).logits for part in drawn.split(256)]).argmax(1) == labels).double().mean()
        seen = torch.cat([judge(part) for part in drawn.split(256)]).view(arguments.people, arguments.each, -1)
        spread = float(1 - seen.mean(1).square().sum(1).mean())
        print(f"steps {steps}, strength {strength}, guidance {scale}: {100 * hits:.1f} %, spread {spread:.3f}")


if __name__ == "__main__":
    main()
