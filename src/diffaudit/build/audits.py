"""Both sides of an audit, built and tried, from what a run needs to what a dry run can tell."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from diffaudit import settings as s
from diffaudit.build.attack import build_gradient_weighting, build_state
from diffaudit.build.door import check_door
from diffaudit.build.people import check_people
from diffaudit.build.perturbation import build_perturber, build_plans
from diffaudit.build.perturbation_judge import build_perturbation_judge
from diffaudit.build.rehearsal import rehearse
from diffaudit.build.sides import Look, build_attacker, build_judge, look_at_public
from diffaudit.build.victims import LabelledImages, victims
from diffaudit.inversion.attacker import Attacker
from diffaudit.judging.perturbed import PerturbationJudge
from diffaudit.perturbation.plans import Plans
from diffaudit.perturbation.scene import Perturber


@dataclass(frozen=True, eq=False)
class PerturbationParts:
    """A perturbation before its first step; the attack gets nothing of the ``judge``."""

    pictures: LabelledImages
    perturber: Perturber
    plans: Plans
    judge: PerturbationJudge


def perturbation_parts(
    settings: s.PerturbationSettings, *, given: Mapping[str, nn.Module] | None = None
) -> PerturbationParts:
    """All that a perturbation needs, rehearsed; ``given`` are the Python objects that models of kind `given` stand for.

    The judge is built before the attack, for it may be refused.

    Raises:
        SettingsError, MissingExtra, ThreatModelViolation: see :func:`.check_door`; a held-out model is a surrogate.
        InvalidSetting: a model, a term, the mask or the loss does not fit the pictures (:func:`.rehearse`).
    """
    check_door(settings)
    pictures = victims(settings.images)
    perturber = build_perturber(settings, pictures.classes, given=given)
    plans = build_plans(settings, perturber)
    judge = build_perturbation_judge(settings, perturber, given=given)
    rehearse(settings, perturber, plans, judge, pictures)
    return PerturbationParts(pictures, perturber, plans, judge)


def inversion_attacker(
    settings: s.InversionSettings, *, given: nn.Module | None = None, look: Look = look_at_public
) -> Attacker:
    """What an inversion's attack holds, the door passed; no model of the judges is opened, no private picture decoded.

    Raises:
        SettingsError, MissingExtra, ThreatModelViolation: see :func:`.check_door`.
        InvalidSetting: private pictures are not of the target's classes; what a model's kind refuses.
    """
    check_door(settings)
    attacker = build_attacker(settings, given=given, look=look)
    check_people(settings, attacker.public.num_classes)
    return attacker


def check_audit(settings: s.AuditSettings) -> str:
    """Opens and tries all that a run would, the judges of an inversion too, and says what there is.

    Nothing is attacked and no run begun; published weights are fetched as a run would fetch them. An inversion itself
    opens its judges when the attack has ended, so that a fault of theirs would be told late.

    Raises:
        DiffauditError: whatever the run would raise before its first step, or for its judges; but not for its folder.
            Models of kind `given` are refused, for nobody hands them over.
    """
    if isinstance(settings, s.PerturbationSettings):
        parts = perturbation_parts(settings)
        of = Counter(parts.judge.roles.values())
        return (
            f"{len(parts.pictures)} pictures, {len(parts.pictures.classes)} classes, {of['surrogate']} surrogates, "
            f"{of['heldout']} held-out models, {of['sibling']} siblings"
        )
    attacker = inversion_attacker(settings)
    build_state(settings, attacker, attacker.pseudo_anchors(settings.embedding.anchor_images))
    build_gradient_weighting(settings)
    judge = build_judge(settings.judging, attacker)
    return (
        f"{len(attacker.classes)} of {attacker.public.num_classes} classes, {len(attacker.public)} public and "
        f"{len(judge.private.images)} private pictures, {len(judge.classifiers)} judges"
    )
