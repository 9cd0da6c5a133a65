"""All that changes while a run trains: what optimisers step and what a checkpoint must hold."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import LabelEmbedding
from diffaudit.inversion.generator import lora_parameters
from diffaudit.inversion.plans import StagePlan
from diffaudit.models.negatives import NegativeBank
from diffaudit.objective import Objective
from diffaudit.terms import BatchTerm, LearnedCentre

SLOW = 0.1
"""Share of a stage's rate at which parameters of terms move, and weights that have no rate of their own."""


@dataclass(eq=False)
class TrainingState:
    """The label embedding, the generator's adapters, and whatever the losses themselves learn or remember."""

    embedding: LabelEmbedding
    attacker: Attacker
    objective: Objective
    bank: NegativeBank | None = None
    sigma_rate: float | None = None
    """The rate of the weights' sigmas; None: :data:`SLOW` of the stage's."""

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Trainable parameters by the names that stages use."""
        projector = self.attacker.prior.projector
        return {
            "embedding": list(self.embedding.parameters()),
            "lora": lora_parameters(self.attacker.prior),
            "projector": [] if projector is None else list(projector.parameters()),
        }

    def slow_groups(self) -> dict[str, dict[str, nn.Parameter]]:
        """What every stage trains beside, more slowly: centres by their term, sigmas by their group, and ``terms``.

        These are the other parameters of terms, by name. What is frozen, such as a network that a term looks through,
        and what a stage trains by a name of its own stay out.
        """
        terms = self.objective.terms
        sigmas = self.objective.weighting.named_parameters()
        centres = {name: term.centres for name, term in terms.items() if isinstance(term, LearnedCentre)}
        placed = {id(value) for values in [centres.values(), *self.groups().values()] for value in values}
        others = {name: value for name, value in terms.named_parameters() if value.requires_grad}
        return {
            "centres": centres,
            "sigmas": {name.rpartition(".")[2]: sigma for name, sigma in sigmas},
            "terms": {name: value for name, value in others.items() if id(value) not in placed},
        }

    @property
    def compares_classmates(self) -> bool:
        """Whether some term compares the images of a class with one another: a batch then holds two of each."""
        return any(isinstance(term, BatchTerm) for term in self.objective.terms.values())

    def tensors(self) -> dict[str, Tensor]:
        """Everything by name, for a checkpoint: parameters that train, and what terms, scales and bank remember."""
        found = {name: parameter.detach() for name, parameter in self._named_parameters().items()}
        found |= self._buffers_of_terms()
        for name, part in self._remembering().items():
            found |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        return found

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Takes back what :meth:`tensors` gave.

        Buffers of terms that are not among ``tensors`` stay as they were built: older checkpoints hold none of them.
        """
        with torch.no_grad():
            for name, parameter in self._named_parameters().items():
                parameter.copy_(tensors[name])
            for name, buffer in self._buffers_of_terms().items():
                if name in tensors:
                    buffer.copy_(tensors[name])
        for name, part in self._remembering().items():
            part.load_state_dict({key: tensors[f"{name}.{key}"] for key in part.state_dict()})

    def _named_parameters(self) -> dict[str, nn.Parameter]:
        by_number = {f"{group}.{n}": value for group, values in self.groups().items() for n, value in enumerate(values)}
        by_name = {f"{group}.{n}": value for group, values in self.slow_groups().items() for n, value in values.items()}
        return by_number | by_name

    def _buffers_of_terms(self) -> dict[str, Tensor]:
        """The persistent buffers of the terms, themselves and not copies."""
        terms = self.objective.terms
        parameters = {name for name, _ in terms.named_parameters(remove_duplicate=False)}
        return {f"terms.{name}": value for name, value in terms.state_dict().items() if name not in parameters}

    def _remembering(self) -> dict[str, nn.Module]:
        scales: dict[str, nn.Module] = {"scales": self.objective.scales}
        return scales if self.bank is None else scales | {"bank": self.bank}


def stage_optimiser(state: TrainingState, plan: StagePlan) -> torch.optim.AdamW:
    """AdamW over the groups that the stage trains and the slow ones; every other parameter is frozen.

    Raises:
        InvalidSetting: the generator has none of these groups.
    """
    groups = state.groups()
    if not any(groups[name] for name in plan.trains):
        found = [name for name, parameters in groups.items() if parameters]
        raise InvalidSetting("trains", f"name what this generator has: {', '.join(found)}", list(plan.trains))
    for name, parameters in groups.items():
        for parameter in parameters:
            parameter.requires_grad_(name in plan.trains)
    trained = [
        {"params": groups[name], "base_rate": plan.rates[name], "clipped": True} for name in plan.trains if groups[name]
    ]
    slow_rate = SLOW * max(plan.rates.values())
    sigma_rate = slow_rate if state.sigma_rate is None else state.sigma_rate
    slow = [
        # Early gradients of sigmas scale with the raw losses: clipped together they would starve what is trained.
        {
            "params": list(parameters.values()),
            "base_rate": sigma_rate if name == "sigmas" else slow_rate,
            "clipped": name != "sigmas",
            "weight_decay": 0.0,
        }
        for name, parameters in state.slow_groups().items()
        if parameters
    ]
    return torch.optim.AdamW([*trained, *slow], lr=0.0, weight_decay=plan.weight_decay)
