"""Settings to objects: the only room that knows every kind by name."""

from diffaudit.build.attack import (
    build_embedding,
    build_gradient_weighting,
    build_image_plan,
    build_objective,
    build_sample_plan,
    build_stages,
    build_state,
    build_weighting,
    used_groups,
)
from diffaudit.build.audits import PerturbationParts, check_audit, inversion_attacker, perturbation_parts
from diffaudit.build.door import check_door
from diffaudit.build.models import (
    build_attributes,
    build_classifier,
    build_encoder,
    build_perceptual,
    build_prior,
)
from diffaudit.build.people import check_people
from diffaudit.build.perturbation import (
    build_drive,
    build_perturber,
    build_plans,
    goal_of,
)
from diffaudit.build.perturbation_judge import build_perturbation_judge
from diffaudit.build.perturbation_terms import build_terms
from diffaudit.build.pictures import opened, private_pictures, public_images
from diffaudit.build.rehearsal import rehearse
from diffaudit.build.sides import (
    Look,
    build_attacker,
    build_judge,
    build_judge_classifier,
    chosen_classes,
    look_at_public,
)
from diffaudit.build.victims import LabelledImages, victims

__all__ = [
    "LabelledImages",
    "Look",
    "PerturbationParts",
    "build_attacker",
    "build_attributes",
    "build_classifier",
    "build_drive",
    "build_embedding",
    "build_encoder",
    "build_gradient_weighting",
    "build_image_plan",
    "build_judge",
    "build_judge_classifier",
    "build_objective",
    "build_perceptual",
    "build_perturbation_judge",
    "build_perturber",
    "build_plans",
    "build_prior",
    "build_sample_plan",
    "build_stages",
    "build_state",
    "build_terms",
    "build_weighting",
    "check_audit",
    "check_door",
    "check_people",
    "chosen_classes",
    "goal_of",
    "inversion_attacker",
    "look_at_public",
    "opened",
    "perturbation_parts",
    "private_pictures",
    "public_images",
    "rehearse",
    "used_groups",
    "victims",
]
