"""Reference attacks: against a linear classifier each has an answer in closed form."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, MissingExtra
from diffaudit.models.classifier import Classifier
from diffaudit.perturbation.references import MeanLogits, Reference, reference_examples

REFERENCES = [Reference(method, budget) for method in ("pgd", "mi-fgsm") for budget in (4, 8, 16)]


class RedAgainstGreen(nn.Module):
    """Two logits: the mean red and the mean green, times ``gain``."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, images: Tensor) -> Tensor:
        return self.gain * images.mean((2, 3))[:, :2]


def classifier(gain: float = 1.0) -> Classifier:
    return Classifier(RedAgainstGreen(gain), size=None, fingerprint=str(gain))


PICTURES = torch.tensor([[100, 90, 50], [3, 250, 50]], dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 4, 4).clone()
LABELS = torch.tensor([0, 1])


def examples(reference: Reference, **options: Any) -> Tensor:
    pytest.importorskip("foolbox")
    given: dict[str, Any] = {"surrogates": [classifier()], "images": PICTURES, "labels": LABELS, "seed": 0} | options
    return reference_examples(reference, **given)


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_a_linear_classifier_is_attacked_at_the_corner_of_the_budget(reference: Reference) -> None:
    """The gradient never turns: red falls and green rises by the whole budget, or to the end of the range."""
    found = examples(reference).int()
    step = reference.budget
    assert (found[0, 0] == 100 - step).all()
    assert (found[0, 1] == 90 + step).all()
    assert (found[1, 0] == 3 + step).all()
    assert (found[1, 1] == 250 - step).all()


def test_foolboxs_own_step_stops_short() -> None:
    """40 steps of a thirtieth of the budget go 4/3 of it: a start at the far end does not reach the corner."""
    foolbox = pytest.importorskip("foolbox")
    model = foolbox.PyTorchModel(classifier().model.eval(), bounds=(0, 1))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        attack = foolbox.attacks.LinfPGD(rel_stepsize=1 / 30, steps=40)
        found = attack.run(model, PICTURES / 255, foolbox.Misclassification(LABELS), epsilon=16 / 255)
    assert (255 * found[0, 0]).max().round() > 100 - 16


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda reference: reference.name)
def test_no_value_leaves_the_budget(reference: Reference) -> None:
    noise = torch.randint(0, 256, (3, 3, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
    found = examples(reference, images=noise, labels=torch.tensor([0, 1, 0]))
    assert found.dtype == torch.uint8
    assert (found.int() - noise.int()).abs().max() == reference.budget


def test_a_goal_is_sought() -> None:
    found = examples(Reference("mi-fgsm", 8), labels=LABELS, goals=1 - LABELS).int()
    assert (found[0, 0] == 92).all()
    assert (found[0, 1] == 98).all()


def test_the_seed_alone_decides() -> None:
    """The blue channel has no gradient: what PGD leaves there is its random start."""
    reference = Reference("pgd", 16)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = examples(reference)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(2)
    assert torch.equal(first, examples(reference))
    assert not torch.equal(first, examples(reference, seed=1))


def test_momentum_needs_no_random_start() -> None:
    assert torch.equal(examples(Reference("mi-fgsm", 8))[:, 2], PICTURES[:, 2])


def test_batches_change_nothing_without_a_random_start() -> None:
    reference = Reference("mi-fgsm", 8)
    assert torch.equal(examples(reference, batch=1), examples(reference))


def test_surrogates_are_met_at_their_mean_logits() -> None:
    images = PICTURES.float() / 255
    both = MeanLogits([classifier(1.0), classifier(3.0)])(images)
    assert torch.allclose(both, classifier(2.0).logits(images))
    # A surrogate that outweighs the other and sees it the other way round decides alone.
    found = examples(Reference("mi-fgsm", 8), surrogates=[classifier(1.0), classifier(-3.0)]).int()
    assert (found[0, 0] == 108).all()


def test_names_and_budgets() -> None:
    assert [one.name for one in REFERENCES] == ["pgd-4", "pgd-8", "pgd-16", "mi-fgsm-4", "mi-fgsm-8", "mi-fgsm-16"]
    with pytest.raises(InvalidSetting, match="`budget` should be between 1 and 255"):
        Reference("pgd", 0)
    with pytest.raises(InvalidSetting, match="`method` should be pgd or mi-fgsm"):
        Reference("fgsm", 8)  # type: ignore[arg-type]


def test_what_breaks_a_rule_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="`surrogates` should hold at least one model"):
        reference_examples(REFERENCES[0], [], PICTURES, LABELS, seed=0)
    with pytest.raises(InvalidSetting, match="`images` should be 8-bit pictures"):
        reference_examples(REFERENCES[0], [classifier()], PICTURES.float(), LABELS, seed=0)


def test_without_foolbox_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "foolbox", None)
    with pytest.raises(MissingExtra, match=r"diffaudit\[pixel\]"):
        reference_examples(REFERENCES[0], [classifier()], PICTURES, LABELS, seed=0)
