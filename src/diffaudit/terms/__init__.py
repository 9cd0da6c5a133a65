"""Terms: one file a family; the formula is a function, the term is the module that reads it off a candidate."""

from diffaudit.terms.base import BatchTerm, ParameterTerm, Term
from diffaudit.terms.classifier import FeatureCentre, TopK, feature_distance, topk_margin
from diffaudit.terms.identity import IdentityCosine, identity_distance
from diffaudit.terms.perceptual import Perceptual, feature_map_distance
from diffaudit.terms.prior import PriorNoise, noise_mse
from diffaudit.terms.regulariser import Regulariser, lora_norm, norm_penalty

__all__ = [
    "BatchTerm",
    "FeatureCentre",
    "IdentityCosine",
    "ParameterTerm",
    "Perceptual",
    "PriorNoise",
    "Regulariser",
    "Term",
    "TopK",
    "feature_distance",
    "feature_map_distance",
    "identity_distance",
    "lora_norm",
    "noise_mse",
    "norm_penalty",
    "topk_margin",
]
