"""Settings to the two sides of an audit: what attacks, and what judges. Neither function sees the other's section."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from diffaudit import settings as s
from diffaudit.build.models import (
    build_attributes,
    build_classifier,
    build_encoder,
    build_perceptual,
    build_prior,
    network_and_size,
)
from diffaudit.build.pictures import private_pictures, public_images
from diffaudit.errors import InvalidSetting, ThreatModelViolation
from diffaudit.inversion.attacker import Attacker, PublicPictures, look_at
from diffaudit.inversion.generator import attach_projector, seek_words
from diffaudit.judging.judge import Instruments, Judge
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.nearest_mean import nearest_mean_classifier
from diffaudit.models.prompts import prompt_with

Look = Callable[[s.Pictures, Classifier, IdentityEncoder], PublicPictures]
"""How the public pictures of a section come to be seen by the target and the attacker's encoder."""


def look_at_public(setting: s.Pictures, classifier: Classifier, encoder: IdentityEncoder) -> PublicPictures:
    """The public pictures of a section, rendered or read, and shown to both models."""
    return look_at(public_images(setting), classifier, encoder)


def build_attacker(
    settings: s.InversionSettings, *, given: nn.Module | None = None, look: Look = look_at_public
) -> Attacker:
    """Everything that the threat model allows, from ``settings.attack`` alone.

    ``look`` may remember what these models said of these pictures before. A prior without an identity projector gets a
    new one where a stage trains it.
    """
    attack = settings.attack
    prior, prompt = build_prior(attack.prior), attack.prior.prompt
    if settings.embedding.kind == "textual_inversion":
        seek_words(prior, prompt, settings.embedding.words)
        prompt = prompt_with(prompt, settings.embedding.words)
    classifier = build_classifier(attack.target, given=given)
    encoder = build_encoder(attack.encoder)
    public = look(attack.public, classifier, encoder)
    classes = chosen_classes(settings.classes, public.num_classes, settings.seed)
    if prior.dimension is None and any("projector" in stage.trains and stage.steps for stage in settings.stages):
        attach_projector(prior, public.embeddings.shape[1], seed=settings.seed)
    return Attacker(
        classes=classes,
        classifier=classifier,
        prior=prior,
        encoder=encoder,
        attributes=build_attributes(attack.attributes, public.images),
        perceptual=build_perceptual(attack.perceptual),
        public=public,
        prompt=prompt,
    )


def chosen_classes(setting: str | int | list[int], available: int, seed: int) -> Tensor:
    """The class indices of a run: all, so many drawn by the seed, or those listed; ascending.

    Raises:
        InvalidSetting: more classes than the target has, or an index that it does not have.
    """
    if setting == "all":
        return torch.arange(available)
    if isinstance(setting, int):
        if setting > available:
            raise InvalidSetting("classes", f"be at most the target's number of classes ({available})", setting)
        return torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:setting].sort().values
    assert isinstance(setting, list)
    wrong = [index for index in setting if index >= available]
    if wrong or len(set(setting)) < len(setting):
        raise InvalidSetting("classes", f"be different indices below {available}", setting)
    return torch.tensor(sorted(setting))


def build_judge(settings: s.Judging, attacker: Attacker) -> Judge:
    """The judges and private pictures; of the attacker only public measuring devices are used.

    Raises:
        InvalidSetting: a classifier tells apart another number of classes than the target.
        ThreatModelViolation: a classifier is not independent of the target, or the encoder is the attacker's.
    """
    encoder = build_encoder(settings.encoder)
    if encoder.fingerprint == attacker.encoder.fingerprint:
        raise ThreatModelViolation(
            f"`judging.encoder` has the weights of the attacker's (SHA-256 {encoder.fingerprint[:12]}): it would agree "
            "with whatever fooled them. Judge with another encoder."
        )
    factors = None if settings.factors is None else network_and_size(settings.factors)[0]
    classifiers = {name: build_judge_classifier(model) for name, model in settings.classifiers.items()}
    picture, num_classes = attacker.public.at(torch.zeros(1, dtype=torch.long)), attacker.public.num_classes
    for name, classifier in classifiers.items():
        answers = classifier.logits(picture).shape[1]
        if answers != num_classes:
            rule = f"tell apart as many classes as the target, {num_classes}"
            raise InvalidSetting(f"judging.classifiers.{name}", rule, answers, "Name another; the attack is kept.")
    return Judge(
        classifiers,
        encoder,
        private_pictures(settings.private).of(attacker.classes),
        instruments=Instruments(attacker.classifier, attacker.perceptual, attacker.attributes),
        factors=factors,
    )


def build_judge_classifier(setting: s.JudgeModel) -> Classifier:
    """A judge's classifier: a classifier, or a recogniser with photographs to compare with."""
    match setting:
        case s.NearestMean():
            known = private_pictures(setting.pictures)
            return nearest_mean_classifier(build_encoder(setting.encoder), known.images, known.labels)
        case _:
            return build_classifier(setting)
