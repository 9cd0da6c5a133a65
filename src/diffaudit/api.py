"""The audits as functions, for models that are Python objects."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from diffaudit.configurations import settings_path
from diffaudit.events import Event
from diffaudit.settings import (
    ClassifierModel,
    GivenModel,
    InversionSettings,
    PerturbationSettings,
    check_perturbation,
    load_perturbation,
    load_settings,
)

if TYPE_CHECKING:
    from torch import nn


def invert(
    settings: InversionSettings | Path | str = "quick",
    output: Path | str | None = None,
    *,
    target: "nn.Module | None" = None,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Runs an inversion and returns its folder; called again with the same arguments, a stopped run goes on.

    Args:
        settings: checked settings, a YAML file, or the bare name of a shipped configuration.
        output: the run's folder; ``runs/<settings.name>`` if None.
        target: a classifier of images ``(B, 3, H, W)`` in [0, 1] to logits ``(B, K)``. It takes the place of the
            settings' target, which then is of kind ``given``, and sees pictures of the size that they name.
        on_event: told of every step, for example ``RunProgress().update``.

    Raises:
        SettingsError: the settings break rules, or name what is not there.
        RunConflict: the folder holds a run made with other settings, models or pictures.
        ThreatModelViolation: a judge is not independent of the attack.
    """
    from diffaudit.study.runner import run_inversion

    if not isinstance(settings, InversionSettings):
        settings = load_settings(settings_path(str(settings)))
    if target is not None and not isinstance(settings.attack.target, GivenModel):
        size = getattr(settings.attack.target, "size", None)
        given = settings.attack.model_copy(update={"target": GivenModel(name=type(target).__name__, size=size)})
        settings = settings.model_copy(update={"attack": given})
    folder = Path("runs") / settings.name if output is None else Path(output)
    return run_inversion(settings, folder, command="diffaudit.invert(...)", on_event=on_event, target=target)


def perturb(
    settings: PerturbationSettings | Path | str = "perturb",
    output: Path | str | None = None,
    *,
    surrogates: "Mapping[str, nn.Module] | None" = None,
    heldout: "Mapping[str, nn.Module] | None" = None,
    siblings: "Mapping[str, nn.Module] | None" = None,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Runs a perturbation and returns its folder; called again with the same arguments, a stopped run goes on.

    Args:
        settings: checked settings, a YAML file, or the bare name of a shipped configuration.
        output: the run's folder; ``runs/<settings.name>`` if None.
        surrogates: classifiers of images ``(B, 3, H, W)`` in [0, 1] to logits ``(B, K)``, by name. They take the place
            of all the settings' surrogates, which then are of kind ``given``.
        heldout: the same for the held-out models.
        siblings: the same for relatives of the surrogates, which are judged in columns of their own.
        on_event: told of every step, for example ``RunProgress().update``.

    Raises:
        SettingsError: the settings break rules, or name what is not there.
        RunConflict: the folder holds a run made with other settings, models or pictures.
        ThreatModelViolation: a held-out model is not independent of a surrogate.
    """
    from diffaudit.study.perturbation_runner import run_perturbation

    if not isinstance(settings, PerturbationSettings):
        settings = load_perturbation(settings_path(str(settings)))
    if surrogates is not None:
        settings = settings.model_copy(update={"surrogates": _handed_over(settings.surrogates, surrogates)})
    judging = settings.judging
    if heldout is not None:
        judging = judging.model_copy(update={"heldout": _handed_over(judging.heldout, heldout)})
    if siblings is not None:
        judging = judging.model_copy(update={"siblings": _handed_over(judging.siblings, siblings)})
    settings = settings.model_copy(update={"judging": judging})
    settings = check_perturbation(settings.model_dump())  # names and numbers fit together as a file's must
    folder = Path("runs") / settings.name if output is None else Path(output)
    given = {**(surrogates or {}), **(heldout or {}), **(siblings or {})}
    return run_perturbation(settings, folder, command="diffaudit.perturb(...)", on_event=on_event, given=given)


def _handed_over(known: Mapping[str, ClassifierModel], models: "Mapping[str, nn.Module]") -> dict[str, GivenModel]:
    """The settings of Python objects: what they say of a given model of that name, else its name and, if any, size."""
    return {
        name: said
        if isinstance(said := known.get(name), GivenModel)
        else GivenModel(name=name, size=getattr(said, "size", None))
        for name in models
    }
