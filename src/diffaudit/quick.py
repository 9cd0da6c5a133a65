"""The trial of a run: the same settings, small enough to see within minutes that everything works."""

from typing import Any

from diffaudit.settings import InversionSettings, check_settings

CLASSES = 20
IMAGES = 4
CANDIDATES = 8
STEPS = 50


def trial(settings: InversionSettings) -> InversionSettings:
    """``settings`` with at most 20 classes, 4 images a class, 8 candidates an image and 50 steps a stage.

    What is below these bounds stays. A trial that differs is named ``<name>-trial``: it has a folder of its own.

    >>> trial(InversionSettings(name="full", classes="all")).classes
    20
    >>> trial(trial(InversionSettings())) == trial(InversionSettings())
    True
    """
    values: dict[str, Any] = settings.model_dump(mode="json")
    match settings.classes:
        case "all":
            values["classes"] = CLASSES
        case int(number):
            values["classes"] = min(number, CLASSES)
        case indices:
            values["classes"] = indices[:CLASSES]
    for stage in values["stages"]:
        stage["steps"] = min(stage["steps"], STEPS)
    values["sampling"]["keep"] = min(settings.sampling.keep, IMAGES)
    values["sampling"]["candidates"] = min(settings.sampling.candidates, CANDIDATES)
    small = check_settings(values)
    return settings if small == settings else small.model_copy(update={"name": f"{settings.name}-trial"})
