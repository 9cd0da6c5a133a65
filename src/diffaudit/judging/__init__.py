"""Judging: models that the attack never saw turn images into records; the measures are pure functions."""

from diffaudit.judging._checks import TooFewSamplesError
from diffaudit.judging.diversity import (
    embedding_variance,
    euclidean,
    factor_error,
    pairwise_distance,
)
from diffaudit.judging.features import (
    class_means,
    euclidean_distances,
    identity_cosine,
    neighbour_distance,
    unit_embeddings,
)
from diffaudit.judging.frechet import frechet_distance, gaussian_frechet_distance
from diffaudit.judging.kernel import kernel_discrepancies, kernel_distance, paired_kernel_discrepancies
from diffaudit.judging.manifold import coverage, density, precision, recall
from diffaudit.judging.success import topk_success

__all__ = [
    "TooFewSamplesError",
    "class_means",
    "coverage",
    "density",
    "embedding_variance",
    "euclidean",
    "euclidean_distances",
    "factor_error",
    "frechet_distance",
    "gaussian_frechet_distance",
    "identity_cosine",
    "kernel_discrepancies",
    "kernel_distance",
    "neighbour_distance",
    "paired_kernel_discrepancies",
    "pairwise_distance",
    "precision",
    "recall",
    "topk_success",
    "unit_embeddings",
]
