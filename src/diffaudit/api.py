"""The audits as functions, for models that are Python objects."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from diffaudit.configurations import settings_path
from diffaudit.events import Event
from diffaudit.settings import GivenModel, InversionSettings, PerturbationSettings, load_perturbation, load_settings

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
            settings' target, which then is of kind ``given``.
        on_event: told of every step, for example ``RunProgress().update``.

    Raises:
        SettingsError: the settings break rules.
        RunConflict: the folder holds a run made with other settings.
        ThreatModelViolation: a judge is not independent of the attack.
    """
    from diffaudit.study.runner import run_inversion

    if not isinstance(settings, InversionSettings):
        settings = load_settings(settings_path(str(settings)))
    if target is not None and not isinstance(settings.attack.target, GivenModel):
        given = settings.attack.model_copy(update={"target": GivenModel(name=type(target).__name__)})
        settings = settings.model_copy(update={"attack": given})
    folder = Path("runs") / settings.name if output is None else Path(output)
    return run_inversion(settings, folder, command="diffaudit.invert(...)", on_event=on_event, target=target)


def perturb(
    settings: PerturbationSettings | Path | str = "perturb",
    output: Path | str | None = None,
    *,
    on_event: Callable[[Event], None] | None = None,
) -> Path:
    """Runs a perturbation and returns its folder; called again with the same arguments, a stopped run goes on.

    Args:
        settings: checked settings, a YAML file, or the bare name of a shipped configuration.
        output: the run's folder; ``runs/<settings.name>`` if None.
        on_event: told of every step, for example ``RunProgress().update``.

    Raises:
        SettingsError: the settings break rules.
        RunConflict: the folder holds a run made with other settings.
        ThreatModelViolation: a held-out model is not independent of a surrogate.
    """
    from diffaudit.study.perturbation_runner import run_perturbation

    if not isinstance(settings, PerturbationSettings):
        settings = load_perturbation(settings_path(str(settings)))
    folder = Path("runs") / settings.name if output is None else Path(output)
    return run_perturbation(settings, folder, command="diffaudit.perturb(...)", on_event=on_event)
