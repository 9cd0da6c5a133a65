"""A whole perturbation run: how small and natural a change in a diffusion latent fools models, seen and unseen."""

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from diffaudit._faults import FaultsError
from diffaudit.settings.base import FolderName, Positive, Section, Seed
from diffaudit.settings.latents import Attention, LatentPath, Mask, Prompts
from diffaudit.settings.models import BundledModel, ClassifierModel, ModelName, NetworkModel, PriorModel
from diffaudit.settings.perturbation_judging import PerturbationJudging
from diffaudit.settings.perturbation_steps import Budget, Ensemble, PerturbationStep, Transformations
from diffaudit.settings.perturbation_terms import AnyAttackLoss, AnyPerturbationTerm, EntropyTerm, MarginLoss
from diffaudit.settings.victims import Victims, WordedFaces


class PerturbationSettings(Section):
    """A whole perturbation run.

    Attributes:
        images: the labelled pictures that are perturbed.
        surrogates: the models that the attack holds, by name: white box.
        judging: all that only scoring opens: models never attacked, defences, reference attacks.
        goal: null to be taken for anything else; `distractor` to be taken for the rival class of each picture.
        loss: what the surrogates' logits are asked for, and its weight over the iterations.
        terms: what else counts, one of a kind: attention, structure, distances.
    """

    audit: Literal["perturbation"] = "perturbation"
    name: FolderName = "perturb"
    seed: Seed = 0
    device: Literal["cpu"] = "cpu"
    threads: Positive | None = None
    images: Victims = WordedFaces()
    prior: PriorModel = PriorModel()
    prompts: Prompts = Prompts()
    surrogates: Annotated[dict[ModelName, ClassifierModel], Field(min_length=1)] = {
        "residual": BundledModel(name="hair-residual"),
        "plain": BundledModel(name="hair-plain"),
        "squeeze": BundledModel(name="hair-squeeze"),
    }
    perceptual: NetworkModel = BundledModel(name="attributes")
    latents: LatentPath = LatentPath()
    attention: Attention = Attention()
    mask: Mask = Mask()
    goal: Literal["distractor"] | None = None
    loss: AnyAttackLoss = MarginLoss()
    terms: list[AnyPerturbationTerm] = [EntropyTerm()]
    ensemble: Ensemble = Ensemble()
    transformations: Transformations = Transformations()
    step: PerturbationStep = PerturbationStep()
    budget: Budget = Budget()
    batch: Positive = 10
    judging: PerturbationJudging = PerturbationJudging()

    @property
    def readers_of_distractors(self) -> list[str]:
        """The terms, the goal and the loss that read each picture's rival class."""
        readers: list[str] = [term.kind for term in self.terms if term.kind in ("contrast", "replace")]
        readers += ["goal"] if self.goal == "distractor" else []
        readers += ["loss"] if self.loss.kind == "distribution" and self.loss.toward == "distractor" else []
        return readers

    @property
    def names_rivals(self) -> bool:
        """Whether prompts name the rival class beside the label."""
        prompts = self.prompts
        asked = prompts.name_rival == "always" or "{distractor}" in prompts.template
        return prompts.distractor != "none" and (asked or bool(self.readers_of_distractors))

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        found = [*self._attack_faults(), *self._model_faults()]
        if found:
            raise FaultsError(found)
        return self

    def _attack_faults(self) -> Iterator[str]:
        kinds = [term.kind for term in self.terms]
        if len(set(kinds)) < len(kinds):
            yield f"`terms` should hold one of a kind. Found {', '.join(kinds)}."
        readers = self.readers_of_distractors
        if readers and self.prompts.distractor == "none":
            rule = f"say how distractors are chosen, for {', '.join(readers)} reads them"
            yield f"`prompts.distractor` should {rule}. Found 'none'."
        stop = self.budget.stop_margin
        if stop is not None and self.loss.kind == "margin" and self.loss.kappa < stop:
            rule = f"be at least `budget.stop_margin` ({stop}), or nothing pulls a picture as far"
            yield f"`loss.kappa` should {rule}. Found {self.loss.kappa}."
        if self.goal is not None and self.loss.kind == "distribution" and self.loss.toward == "uniform":
            yield "`loss.toward` should be 'distractor' where that is the goal. Found 'uniform'."

    def _model_faults(self) -> Iterator[str]:
        weights, models = self.ensemble.weights, len(self.surrogates)
        if weights is not None and len(weights) != models:
            yield f"`ensemble.weights` should be one per surrogate, {models}. Found {len(weights)}."
        twice = self.surrogates.keys() & (self.judging.heldout.keys() | self.judging.siblings.keys())
        twice |= self.judging.heldout.keys() & self.judging.siblings.keys()
        if twice:
            found = ", ".join(sorted(twice))
            yield f"`judging` should give models names of their own. Found {found} twice."
