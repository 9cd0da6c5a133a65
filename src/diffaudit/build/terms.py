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
    row_centres,
    step_weight,
)
from diffaudit.terms.margin import ROUNDING

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
        if found is None:
            hidden = self.attacker.classifier.no_features
            raise InvalidSetting(
                "terms.cls",
                "hold no term `feature` where the target shows no penultimate features",
                hidden or "the input of the target's last linear layer is no matrix (B, P)",
                "Leave the term out.",
            )
        every = torch.zeros(self.classes, found.shape[1])
        every[self.attacker.classes] = found
        return every

    def row_centres(self) -> Tensor:
        """``(C, P)`` the classes' rows of the target's last layer, as long as the pseudo centres are."""
        rows, centres = self.attacker.classifier.class_rows, self.centres()[self.attacker.classes]
        if rows is None or rows.shape != (self.classes, centres.shape[1]):
            found = None if rows is None else tuple(rows.shape)
            rule = f"be `pseudo` or `learned` where the target's last layer has no row of {centres.shape[1]} a class"
            raise InvalidSetting("terms.cls.centres", rule, found)
        return row_centres(rows, centres)

    def few(self) -> Tensor:
        """The first public pictures, to try a model on: ``(16, 3, H, W)`` in [0, 1], or all where there are fewer."""
        return self.attacker.public.at(torch.arange(min(16, len(self.attacker.public))))


def build_entries(
    setting: s.Terms,
    groups: tuple[s.Group, ...],
    attacker: Attacker,
    embedding: LabelEmbedding,
    *,
    anchor_images: int,
) -> list[Entry]:
    """The terms of ``groups``.

    Raises:
        InvalidSetting: a term asks for what the attacker's models do not give: features of a target that hides them,
            more rivals than there are classes, cosines of a target whose logits are none, attributes that the
            estimator does not read, other than three maps of the perceptual network.
    """
    tools = _Tools(attacker, embedding, anchor_images)
    entries = []
    for group in groups:
        for term in getattr(setting, group):
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
            k = adaptive_k(tools.classes, k_min=setting.k_min) if setting.k is None else setting.k
            if k >= tools.classes:
                rule = f"be at most {tools.classes - 1}, for {tools.classes} classes have no more rivals"
                raise InvalidSetting("terms.cls.k", rule, k)
            return TopKSoftplus(k=k, margin=setting.margin) if setting.bounded else TopK(k=k)
        case s.FeatureTerm():
            match setting.centres:
                case "pseudo":
                    return FeatureCentre(tools.centres())
                case "learned":
                    return LearnedCentre(tools.centres())
                case "fixed":
                    return FeatureCentre(tools.row_centres())
        case s.LogitMarginTerm():
            return LogitMargin(margin=setting.margin)
        case s.AngularMarginTerm():
            _require_cosines(setting.logit_scale, tools)
            return AngularMargin(scale=setting.logit_scale, margin=setting.margin)
        case s.IdentityTerm():
            return IdentityCosine()
        case s.ContrastiveTerm():
            if setting.form == "hard":
                return IdentityMargin(margin=setting.margin)
            return IdentitySoftMargin(margin=setting.margin, scale=setting.sharpness)
        case s.PerceptualTerm():
            if setting.form == "plain":
                return Perceptual(tools.attacker.perceptual)
            return HierarchicalPerceptual(tools.attacker.perceptual)
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


@torch.no_grad()
def _require_cosines(scale: float, tools: _Tools) -> None:
    """Refuse a scale under which the logits of some public pictures are no cosines; such that are may be none still."""
    largest = float(tools.attacker.classifier.logits(tools.few()).abs().max()) / scale
    if largest > 1 + ROUNDING:
        raise InvalidSetting(
            "terms.cls.logit_scale",
            "be the factor of the target's last, normalised layer, so that logits over it are cosines, in [-1, 1]",
            f"{scale:g}, by which public pictures reach {largest:.3g}",
            "Give that factor; for a target without such a layer take `logit_margin`.",
        )
