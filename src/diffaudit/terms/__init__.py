"""Terms: one file a family; the formula is a function, the term is the module that reads it off a candidate."""

from diffaudit.terms.adversarial import (
    distribution_distance,
    dlr,
    fooling_margin,
    goal_cross_entropy,
    goal_dlr,
    goal_margin,
    negated_cross_entropy,
    peaked_goal,
    uniform_goal,
)
from diffaudit.terms.attention_maps import draw_heads, head_mean, label_map, label_shares, resized_map
from diffaudit.terms.attention_shift import (
    AttentionContrast,
    AttentionDrift,
    AttentionReplacement,
    attention_contrast,
    attention_drift,
    attention_replacement,
)
from diffaudit.terms.attention_spread import AttentionEntropy, AttentionVariance, attention_entropy, attention_variance
from diffaudit.terms.attributes import ATTRIBUTE_WEIGHTS, Attributes, attribute_distance
from diffaudit.terms.base import BatchTerm, ParameterTerm, Term
from diffaudit.terms.centres import FeatureCentre, LearnedCentre, centre_travel, feature_distance, row_centres
from diffaudit.terms.classifier import TopK, TopKSoftplus, adaptive_k, topk_margin, topk_softplus
from diffaudit.terms.diversity import Diversity, embedding_concentration
from diffaudit.terms.frequency import Frequency, laplacian_distance, wavelet_distance
from diffaudit.terms.identity import (
    IdentityCosine,
    IdentityMargin,
    IdentitySoftMargin,
    identity_distance,
    identity_margin,
    identity_soft_margin,
)
from diffaudit.terms.margin import AngularMargin, LogitMargin, angular_hinge, logit_hinge
from diffaudit.terms.perceptual import (
    HierarchicalPerceptual,
    Perceptual,
    feature_map_distance,
    hierarchical_distance,
)
from diffaudit.terms.pixels import CoarseColour, PixelDistance, coarse_colour_distance, pixel_distance
from diffaudit.terms.prior import PriorNoise, noise_cosine, noise_hybrid, noise_mse
from diffaudit.terms.regulariser import Regulariser, lora_norm, norm_penalty
from diffaudit.terms.schedules import constant_weight, cosine_weight, linear_weight, step_weight
from diffaudit.terms.structure import SelfAttention, self_attention_distance

__all__ = [
    "ATTRIBUTE_WEIGHTS",
    "AngularMargin",
    "AttentionContrast",
    "AttentionDrift",
    "AttentionEntropy",
    "AttentionReplacement",
    "AttentionVariance",
    "Attributes",
    "BatchTerm",
    "CoarseColour",
    "Diversity",
    "FeatureCentre",
    "Frequency",
    "HierarchicalPerceptual",
    "IdentityCosine",
    "IdentityMargin",
    "IdentitySoftMargin",
    "LearnedCentre",
    "LogitMargin",
    "ParameterTerm",
    "Perceptual",
    "PixelDistance",
    "PriorNoise",
    "Regulariser",
    "SelfAttention",
    "Term",
    "TopK",
    "TopKSoftplus",
    "adaptive_k",
    "angular_hinge",
    "attention_contrast",
    "attention_drift",
    "attention_entropy",
    "attention_replacement",
    "attention_variance",
    "attribute_distance",
    "centre_travel",
    "coarse_colour_distance",
    "constant_weight",
    "cosine_weight",
    "distribution_distance",
    "dlr",
    "draw_heads",
    "embedding_concentration",
    "feature_distance",
    "feature_map_distance",
    "fooling_margin",
    "goal_cross_entropy",
    "goal_dlr",
    "goal_margin",
    "head_mean",
    "hierarchical_distance",
    "identity_distance",
    "identity_margin",
    "identity_soft_margin",
    "label_map",
    "label_shares",
    "laplacian_distance",
    "linear_weight",
    "logit_hinge",
    "lora_norm",
    "negated_cross_entropy",
    "noise_cosine",
    "noise_hybrid",
    "noise_mse",
    "norm_penalty",
    "peaked_goal",
    "pixel_distance",
    "resized_map",
    "row_centres",
    "self_attention_distance",
    "step_weight",
    "topk_margin",
    "topk_softplus",
    "uniform_goal",
    "wavelet_distance",
]
