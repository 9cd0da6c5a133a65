"""The door of an audit: what can be refused of its settings before a model is loaded or a picture is made."""

from diffaudit import settings as s
from diffaudit.build.presence import check_presence
from diffaudit.build.separation import check_separation
from diffaudit.perturbation.references import require_foolbox


def check_door(settings: s.AuditSettings) -> None:
    """Refuses settings whose judges stand on the attack's side, whose judging names what is not there or not installed.

    Raises:
        InvalidSetting: a path under ``judging`` does not exist.
        MissingExtra: reference attacks are asked for, and foolbox is not installed.
        ThreatModelViolation: a model, folder or file, or the name or a picture of a person stands on both sides.
    """
    check_separation(settings)
    check_presence(settings)
    if isinstance(settings, s.PerturbationSettings) and settings.judging.references:
        require_foolbox()
