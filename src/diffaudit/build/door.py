"""The door of an audit: what can be refused of its settings before a model is loaded or a picture is made."""

from diffaudit import settings as s
from diffaudit.build.presence import check_presence
from diffaudit.build.separation import check_separation


def check_door(settings: s.AuditSettings) -> None:
    """Refuses settings that name what is not there or not installed, or whose judges stand on the attack's side.

    Raises:
        SettingsError: files, folders or bundled models are missing; all of them at once.
        InvalidSetting: a folder of people is empty, or nobody bears a name that it is to include or exclude.
        MissingExtra: a package that a model, a term, a weighting or a reference attack needs is not installed.
        ThreatModelViolation: a model, folder or file, or the name or a picture of a person stands on both sides.
    """
    check_presence(settings)
    check_separation(settings)
