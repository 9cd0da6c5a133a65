"""The door of an audit: nothing of the judges may stand on the attack's side."""

from collections.abc import Collection, Mapping
from typing import assert_never

from diffaudit import settings as s
from diffaudit.build.pictures import opened
from diffaudit.data.folders import ImageFolder
from diffaudit.data.splits import check_disjoint
from diffaudit.errors import ThreatModelViolation


def check_separation(settings: s.AuditSettings) -> None:
    """Refuses settings in which something of the judges' is also the attack's; no model is loaded.

    Of an inversion: a file of the judges, or a person that is public and private. Pictures of folders are compared as
    files, by the names of people and by the hash of the bytes; none is decoded. Of a perturbation: a held-out model
    that is a surrogate, or the judges' encoder where the attack's prior is conditioned by it.

    Raises:
        ThreatModelViolation: a bundled name, folder or file, or the name or a picture of a person stands on both sides.
    """
    match settings:
        case s.InversionSettings():
            _check_inversion(settings)
        case s.PerturbationSettings():
            judges: dict[str, object] = {f"heldout.{name}": each for name, each in settings.judging.heldout.items()}
            judges |= {"encoder": settings.judging.encoder}
            held = (*settings.surrogates.values(), settings.perceptual, settings.prompts.identity)
            _refuse_seen(judges, {_key(model) for model in held if model is not None})
        case _:
            assert_never(settings)


def _check_inversion(settings: s.InversionSettings) -> None:
    attack = settings.attack
    judges: dict[str, object] = {**settings.judging.classifiers, "encoder": settings.judging.encoder}
    if settings.judging.factors is not None:
        judges["factors"] = settings.judging.factors
    held = (attack.target, attack.encoder, attack.attributes, attack.perceptual)
    _refuse_seen(judges, {_key(model) for model in held})
    if isinstance(attack.public, s.PictureFolders):
        public = opened(attack.public)
        for folder in _private_folders(settings.judging):
            for other in public:
                check_disjoint(folder, other)


def _refuse_seen(judges: Mapping[str, object], seen: Collection[str]) -> None:
    """What is handed over as an object has no name to go by: it is compared with the attack's own once it is there."""
    for name, model in judges.items():
        if not isinstance(model, s.GivenModel) and _key(model) in seen:
            raise ThreatModelViolation(
                f"`judging.{name}` is a model that the attack holds too ({_key(model)}). Judge with another model."
            )


def _private_folders(judging: s.Judging) -> list[ImageFolder]:
    """Every folder of private pictures that some part of the judging opens."""
    known = [model.pictures for model in judging.classifiers.values() if isinstance(model, s.NearestMean)]
    private = [judging.private] if isinstance(judging.private, s.PictureFolders) else []
    return [folder for pictures in (*private, *known) for folder in opened(pictures)]


def _key(model: object) -> str:
    match model:
        case s.BundledModel(name=name):
            return f"bundled {name}"
        case s.TrainedModel(folder=folder):
            return f"folder {folder.resolve()}"
        case s.ExportedModel(path=path):
            return f"file {path.resolve()}"
        case s.NearestMean(encoder=encoder):
            return _key(encoder)
        case _:
            return f"model {model!r}"
