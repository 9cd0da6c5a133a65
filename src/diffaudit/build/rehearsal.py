"""What is tried on a blank picture before any work: every model's classes, the loss, the terms, mask and words."""

import torch

from diffaudit import settings as s
from diffaudit.build.perturbation_terms import build_terms
from diffaudit.build.victims import LabelledImages
from diffaudit.errors import InvalidSetting
from diffaudit.judging.perturbed import PerturbationJudge
from diffaudit.perturbation.mask import grad_cam
from diffaudit.perturbation.scene import Perturber
from diffaudit.terms import dlr, goal_dlr

PLACES = {"surrogate": "surrogates", "heldout": "judging.heldout", "sibling": "judging.siblings"}


@torch.no_grad()
def rehearse(
    settings: s.PerturbationSettings, perturber: Perturber, judge: PerturbationJudge, pictures: LabelledImages
) -> None:
    """Refuses, before any picture is attacked, what could not be attacked or judged afterwards.

    Raises:
        InvalidSetting: a model that does not answer for each of the pictures' classes, and no others; a loss of more
            classes than there are; a surrogate without feature maps under a mask of Grad-CAM; names that the prior's
            text encoder cannot compare; terms that cannot be made.
        MissingExtra: a term needs a package that is not installed.
    """
    blank = torch.zeros(1, *pictures.images.shape[1:])
    _require_classes(judge, blank, len(pictures.classes))
    if isinstance(settings.loss, s.DlrLoss):
        logits, label = torch.zeros(1, len(pictures.classes)), torch.tensor([0])
        _ = dlr(logits, label) if settings.goal is None else goal_dlr(logits, label, label + 1)
    if settings.mask.kind == "grad_cam":
        grad_cam(list(perturber.surrogates.values()), blank, torch.tensor([0]), 1)
    if perturber.distractor == "text":
        _ = perturber.nearest_names
    build_terms(settings, perturber, 1)


def _require_classes(judge: PerturbationJudge, blank: torch.Tensor, classes: int) -> None:
    for name, model in judge.models.items():
        found = model.logits(blank).shape[1]
        if found != classes:
            raise InvalidSetting(
                f"{PLACES[judge.roles[name]]}.{name}",
                f"answer for as many classes as the pictures have names, {classes}",
                found,
                "Name the classes that the model knows, each in its place, or take a model of the pictures' classes.",
            )
