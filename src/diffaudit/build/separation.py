"""The door of an audit: nothing of the judges may stand on the attack's side."""

from diffaudit import settings as s
from diffaudit.build.pictures import opened
from diffaudit.data.folders import ImageFolder
from diffaudit.data.splits import check_disjoint
from diffaudit.errors import ThreatModelViolation


def check_separation(settings: s.InversionSettings) -> None:
    """Refuses settings in which a file of the judges is also one of the attack's, or a person is public and private.

    Pictures of folders are compared as files, by the names of people and by the hash of the bytes; none is decoded.

    Raises:
        ThreatModelViolation: a bundled name, folder or file, or the name or a picture of a person stands on both sides.
    """
    attack = settings.attack
    seen = {_key(model) for model in (attack.target, attack.encoder, attack.attributes, attack.perceptual)}
    judges = dict(settings.judging.classifiers) | {"encoder": settings.judging.encoder}
    if settings.judging.factors is not None:
        judges["factors"] = settings.judging.factors
    for name, model in judges.items():
        if _key(model) in seen:
            raise ThreatModelViolation(
                f"`judging.{name}` is a model that the attack holds too ({_key(model)}). Judge with another model."
            )
    if isinstance(attack.public, s.PictureFolders):
        public = opened(attack.public)
        for folder in _private_folders(settings.judging):
            for other in public:
                check_disjoint(folder, other)


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
