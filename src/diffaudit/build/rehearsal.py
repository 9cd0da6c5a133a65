"""What is tried before any work, most of it on a blank picture: models, prior, loss, terms, mask, words and labels."""

from collections.abc import Sequence

import torch

from diffaudit import settings as s
from diffaudit.build.gradients import require_gradient
from diffaudit.build.perturbation_terms import PICTORIAL, build_terms
from diffaudit.build.victims import LabelledImages
from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting
from diffaudit.judging.image_distances import structural_similarity
from diffaudit.judging.parts import in_parts
from diffaudit.judging.perturbed import PerturbationJudge
from diffaudit.perturbation.mask import grad_cam
from diffaudit.perturbation.plans import Plans
from diffaudit.perturbation.scene import Perturber
from diffaudit.perturbation.words import Words
from diffaudit.terms import dlr, goal_dlr

ENOUGH = 10
"""So many pictures that it is no accident where every surrogate has every one wrong."""
PLACES = {"surrogate": "surrogates", "heldout": "judging.heldout", "sibling": "judging.siblings"}


@torch.no_grad()
def rehearse(
    settings: s.PerturbationSettings,
    perturber: Perturber,
    plans: Plans,
    judge: PerturbationJudge,
    pictures: LabelledImages,
) -> None:
    """Refuses, before any picture is attacked, what could not be attacked or judged afterwards.

    Raises:
        InvalidSetting: a model that does not answer for each of the pictures' classes, and no others; a surrogate
            without a gradient to follow; labels of which no surrogate has one right; pictures that the prior's
            autoencoder gives back in another size, or that are too small to be compared; a loss of more classes than
            there are; a surrogate without feature maps under a mask of Grad-CAM; names that the prior's text encoder
            cannot compare; words of a picture's class that are read and that its tokenizer does not know or cuts off;
            terms that cannot be made, or that the pictures' size does not suit.
        MissingExtra: a term needs a package that is not installed.
    """
    blank = torch.zeros(1, *pictures.images.shape[1:])
    _require_classes(judge, blank, len(pictures.classes))
    for name, model in perturber.surrogates.items():
        require_gradient(f"surrogates.{name}", model.logits, blank)
    _require_known_labels(perturber, pictures)
    _require_the_same_size_back(perturber, blank)
    structural_similarity(blank, blank)
    if isinstance(settings.loss, s.DlrLoss):
        logits, label = torch.zeros(1, len(pictures.classes)), torch.tensor([0])
        _ = dlr(logits, label) if settings.goal is None else goal_dlr(logits, label, label + 1)
    if settings.mask.kind == "grad_cam":
        grad_cam(list(perturber.surrogates.values()), blank, torch.tensor([0]), 1)
    if perturber.distractor == "text":
        _ = perturber.nearest_names
    if plans.recording.reads_words or plans.mask.kind == "attention":
        _require_words(perturber, sorted(set(pictures.labels.tolist())))
    build_terms(settings, perturber, 1)
    if pictorial := [term for term in settings.terms if isinstance(term, PICTORIAL)]:
        alone = build_terms(settings.model_copy(update={"terms": pictorial}), perturber, 1)
        assert alone is not None
        unmoved = torch.zeros(1, len(pictures.classes))
        alone(Candidate(image=blank, source=blank, target=torch.tensor([0]), logits=unmoved), 0)


def _require_known_labels(perturber: Perturber, pictures: LabelledImages) -> None:
    if len(pictures) < ENOUGH:
        return
    found = (in_parts(model.logits, 64, pictures.images).argmax(1) for model in perturber.surrogates.values())
    if not any(bool((classes == pictures.labels).any()) for classes in found):
        raise InvalidSetting(
            "images",
            "be labelled as the surrogates count their classes",
            f"{len(pictures)} pictures, all of them wrong",
            "See whether classes are counted from 0 (`images.first_class`), and in which order they are named.",
        )


def _require_the_same_size_back(perturber: Perturber, blank: torch.Tensor) -> None:
    rule, side = "be a side that the prior's autoencoder gives back", blank.shape[-1]
    try:
        back = perturber.prior.decode(perturber.prior.encode(blank)).shape
    except RuntimeError as error:
        raise InvalidSetting("images.size", rule, side, f"The autoencoder: {error}.") from error
    if back != blank.shape:
        raise InvalidSetting("images.size", rule, f"{side}, which comes back as {back[-1]}")


def _require_words(perturber: Perturber, labels: Sequence[int]) -> None:
    """The words of the pictures' classes are looked for or, where rivals are named, those of every class.

    These stand beside the longest other name, which pushes them farthest back.
    """
    text, template, names = perturber.prior.text, perturber.template, perturber.names
    length = 0 if text is None else text.length
    if perturber.distractor == "none":
        Words(text, template, [names[label] for label in labels], None).masks(length)
    else:
        second, first = sorted(names, key=len)[-2:]
        words = Words(text, template, names, [second if name == first else first for name in names])
        words.masks(length)
        words.swapped_masks(length)


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
