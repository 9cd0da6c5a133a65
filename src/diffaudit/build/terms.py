"""Settings to the objective: every group's terms, by name."""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from diffaudit import settings as s
from diffaudit.errors import InvalidSetting
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import LabelEmbedding
from diffaudit.inversion.generator import lora_parameters
from diffaudit.models.negatives import NegativeBank
from diffaudit.objective import Entry
from diffaudit.terms import (
    ATTRIBUTE_WEIGHTS,
    AngularMargin,
    Attributes,
    BatchTerm,
    Diversity,
    FeatureCentre,
    HierarchicalPerceptual,
    IdentityCosine,
    IdentityMargin,
    IdentitySoftMargin,
    LearnedCentre,
    LogitMargin,
    ParameterTerm,
    Perceptual,
    PriorNoise,
    Regulariser,
    Term,
    TopK,
    TopKSoftplus,
    adaptive_k,
    constant_weight,
    cosine_weight,
    linear_weight,
    noise_cosine,
    noise_hybrid,
    noise_mse,
    step_weight,
)

DISTANCES = {"mse": noise_mse, "cosine": noise_cosine, "hybrid": noise_hybrid}
SCHEDULES = {"constant": constant_weight, "step": step_weight, "linear": linear_weight, "cosine": cosine_weight}
NAMES = {
    "noise": "prior",
    "top_k": "cls_topk",
    "feature": "cls_feature",
    "logit_margin": "cls_margin",
    "angular_margin": "cls_angle",
    "identity": "id",
    "contrastive": "id_contrast",
    "perceptual": "perc",
    "attributes": "attr",
    "diversity": "div",
    "regulariser": "reg",
}
"""What logs and reports call a term of each kind."""

TermSetting = s.NoiseTerm | s.ClassifierTerm | s.AnyIdentityTerm | s.SourceTerm | s.RegulariserTerm


@dataclass(frozen=True, eq=False)
class _Tools:
    """What terms are made of."""

    attacker: Attacker
    embedding: LabelEmbedding
    anchor_images: int

    @property
    def classes(self) -> int:
        return self.attacker.public.num_classes

    def centres(self) -> Tensor:
        """``(C, P)`` pseudo centres of the classes sought; zeros for the others, which no image seeks."""
        found = self.attacker.pseudo_centres(self.anchor_images)
        assert found is not None  # a term of a target without features is not built
        every = torch.zeros(self.classes, found.shape[1])
        every[self.attacker.classes] = found
        return every


def build_entries(
    setting: s.Terms,
    groups: tuple[s.Group, ...],
    attacker: Attacker,
    embedding: LabelEmbedding,
    *,
    anchor_images: int,
) -> list[Entry]:
    """The terms of ``groups``. Where the target hides its features their term is left out.

    Raises:
        InvalidSetting: attributes are asked for that the estimator does not read.
    """
    tools = _Tools(attacker, embedding, anchor_images)
    entries = []
    for group in groups:
        for term in getattr(setting, group):
            if isinstance(term, s.FeatureTerm) and attacker.public.features is None:
                continue
            built = _build_term(term, tools)
            entries.append(Entry(name=NAMES[term.kind], group=group, term=built, factor=term.factor, scale=term.scale))
    return entries


def build_bank(setting: s.Terms, groups: tuple[s.Group, ...], attacker: Attacker) -> NegativeBank | None:
    """The bank that contrastive terms draw from, its ring filled with public pictures; None without such a term."""
    if "id" not in groups or not any(isinstance(term, s.ContrastiveTerm) for term in setting.id):
        return None
    public = attacker.public
    bank = NegativeBank(
        attacker.classes,
        public.embeddings.shape[1],
        capacity=setting.bank.capacity,
        per_image=setting.bank.per_image,
        interval=setting.bank.interval,
    )
    if setting.bank.capacity > 0:
        bank.remember(public.embeddings, public.log_probabilities)
    return bank


def _build_term(setting: TermSetting, tools: _Tools) -> Term | BatchTerm | ParameterTerm:
    match setting:
        case s.NoiseTerm():
            return PriorNoise(DISTANCES[setting.distance], schedule=SCHEDULES[setting.schedule])
        case s.TopKTerm():
            k = adaptive_k(tools.classes) if setting.k is None else setting.k
            return TopKSoftplus(k=k) if setting.bounded else TopK(k=k)
        case s.FeatureTerm():
            return FeatureCentre(tools.centres()) if setting.centres == "pseudo" else LearnedCentre(tools.centres())
        case s.LogitMarginTerm():
            return LogitMargin(margin=setting.margin)
        case s.AngularMarginTerm():
            return AngularMargin(scale=setting.logit_scale, margin=setting.margin)
        case s.IdentityTerm():
            return IdentityCosine()
        case s.ContrastiveTerm():
            if setting.form == "hard":
                return IdentityMargin(margin=setting.margin)
            return IdentitySoftMargin(margin=setting.margin, scale=setting.sharpness)
        case s.PerceptualTerm():
            form = Perceptual if setting.form == "plain" else HierarchicalPerceptual
            return form(tools.attacker.perceptual)
        case s.AttributeTerm():
            known = tools.attacker.attributes.columns
            readable = {name: weight for name, weight in ATTRIBUTE_WEIGHTS.items() if name in known}
            weights: dict[str, float] = readable if setting.weights is None else dict(setting.weights.items())
            if weights.keys() - known.keys():
                rule = f"name what the attack's estimator reads: {', '.join(known)}"
                raise InvalidSetting("terms.perc.weights", rule, list(weights))
            return Attributes(tools.attacker.attributes, weights, distance=setting.distance)
        case s.DiversityTerm():
            return Diversity()
        case s.RegulariserTerm():
            lora = lora_parameters(tools.attacker.prior)
            return Regulariser(tools.embedding.raw, lora, lora_weight=setting.lora_weight)
        case _:
            assert_never(setting)
