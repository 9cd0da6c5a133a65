"""Prints how many faces a second :func:`diffaudit.data.rendering.render_faces` draws."""

import argparse
import statistics
import time

import torch

from diffaudit.data.faces import FaceFactors, sample_faces, sample_identities
from diffaudit.data.rendering import render_faces


def images_per_second(faces: FaceFactors, *, size: int, repeats: int) -> float:
    """Return the median over ``repeats`` renderings of ``faces``, after one that is not counted."""
    render_faces(faces, size=size)
    rates = []
    for _ in range(repeats):
        start = time.perf_counter()
        render_faces(faces, size=size)
        rates.append(len(faces) / (time.perf_counter() - start))
    return statistics.median(rates)


def main() -> None:
    """Print one line per number of threads."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    arguments = parser.parse_args()
    faces = sample_faces(sample_identities(arguments.images, seed=0), seed=1)
    for threads in arguments.threads:
        torch.set_num_threads(threads)
        rate = images_per_second(faces, size=arguments.size, repeats=arguments.repeats)
        print(f"{arguments.size} x {arguments.size}, {threads} thread(s): {rate:.0f} images/s")


if __name__ == "__main__":
    main()
