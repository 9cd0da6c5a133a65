"""Settings to the judges of a perturbation: models in their roles, defences before them, an encoder for the set."""

from collections.abc import Mapping
from typing import assert_never

from torch import nn

from diffaudit import settings as s
from diffaudit.build.models import build_classifier, build_encoder, build_perceptual
from diffaudit.judging.defences import Defence, depth_defence, jpeg_defence, purification_defence, resize_defence
from diffaudit.judging.perturbed import PerturbationJudge, Role
from diffaudit.models.prior import DiffusionPrior
from diffaudit.perturbation.scene import Perturber


def build_perturbation_judge(
    settings: s.PerturbationSettings, perturber: Perturber, *, given: Mapping[str, nn.Module] | None = None
) -> PerturbationJudge:
    """The surrogates beside models that the attack never saw, ``given`` as in :func:`.build_perturber`.

    Raises:
        ThreatModelViolation: a held-out model is not independent of a surrogate.
    """
    judging, objects = settings.judging, given or {}
    unseen = {**judging.heldout, **judging.siblings}
    built = {
        name: build_classifier(model, given=objects.get(name), name=f"judging.{name}") for name, model in unseen.items()
    }
    models = {**perturber.surrogates, **built}
    roles: dict[str, Role] = {
        **dict.fromkeys(perturber.surrogates, "surrogate"),
        **dict.fromkeys(judging.heldout, "heldout"),
        **dict.fromkeys(judging.siblings, "sibling"),
    }
    defences = [_defence(asked, perturber.prior) for asked in judging.defences]
    encoder = None if judging.encoder is None else build_encoder(judging.encoder)
    return PerturbationJudge(models, roles, build_perceptual(judging.perceptual), defences=defences, encoder=encoder)


def _defence(setting: s.AnyDefence, prior: DiffusionPrior) -> Defence:
    match setting:
        case s.JpegDefence(quality=quality):
            return jpeg_defence(quality)
        case s.BitDepthDefence(bits=bits):
            return depth_defence(bits)
        case s.ResizePadDefence(least=least, repeats=repeats):
            return resize_defence(least, repeats)
        case s.PurificationDefence(strength=strength, steps=steps, repeats=repeats):
            condition = prior.condition(None, 1, "")
            return purification_defence(prior, condition, strength=strength, steps=steps, repeats=repeats)
        case _:
            assert_never(setting)
