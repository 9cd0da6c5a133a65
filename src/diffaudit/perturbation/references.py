"""Reference attacks on pixels, from foolbox: what any perturbation must be read against. None is written here."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, MissingExtra
from diffaudit.models.classifier import Classifier


@dataclass(frozen=True)
class Reference:
    """An attack within ``budget`` / 255 of every value; its ``name``, such as ``pgd-8``, is its row in the records.

    - ``pgd``: projected gradient descent on the cross-entropy, 40 signed steps of a sixteenth of the budget from a
      random start; foolbox's own step, a thirtieth, does not reach from one end of the budget to the other. Madry,
      Makelov, Schmidt, Tsipras, Vladu, "Towards Deep Learning Models Resistant to Adversarial Attacks" (2017,
      arXiv:1706.06083).
    - ``mi-fgsm``: 10 signed steps of a fifth of the budget along a momentum (decay 1). Dong, Liao, Pang, Su, Zhu, Hu,
      Li, "Boosting Adversarial Attacks with Momentum" (2017, arXiv:1710.06081). Foolbox sums the *signs* of the
      gradients, the paper gradients of L1 norm 1: the two differ where gradients differ in size.

    Raises:
        InvalidSetting: for another method, or a budget outside 1 to 255.
    """

    method: Literal["pgd", "mi-fgsm"]
    budget: int

    def __post_init__(self) -> None:
        if self.method not in ("pgd", "mi-fgsm"):
            raise InvalidSetting("method", "be pgd or mi-fgsm", self.method)
        if not 1 <= self.budget <= 255:
            raise InvalidSetting("budget", "be between 1 and 255", self.budget, "4, 8 and 16 are usual.")

    @property
    def name(self) -> str:
        """Method and budget."""
        return f"{self.method}-{self.budget}"


def reference_examples(
    reference: Reference,
    surrogates: Sequence[Classifier],
    images: Tensor,
    labels: Tensor,
    goals: Tensor | None = None,
    *,
    seed: int,
    batch: int = 64,
) -> Tensor:
    """Return adversarial images against the mean logits of the surrogates, as 8-bit pictures.

    Shapes ``(B, 3, H, W) uint8, (B,), (B,) -> (B, 3, H, W) uint8``. No value moves by more than ``reference.budget``:
    rounding keeps it so, for the budget is whole. Success is for the judges to say, not for the attack. ``seed``
    decides the random start; the global generator is left as it was.

    Rauber, Zimmermann, Bethge, Brendel, "Foolbox Native: Fast adversarial attacks to benchmark the robustness of
    machine learning models in PyTorch, TensorFlow, and JAX" (2020, Journal of Open Source Software).

    Raises:
        InvalidSetting: for no surrogate, or images that are not 8-bit.
        MissingExtra: foolbox is not installed.
    """
    if not surrogates:
        raise InvalidSetting("surrogates", "hold at least one model", len(surrogates))
    if images.dtype != torch.uint8:
        raise InvalidSetting("images", "be 8-bit pictures (B, 3, H, W)", f"{tuple(images.shape)} of {images.dtype}")
    foolbox = _foolbox()
    model = foolbox.PyTorchModel(MeanLogits(surrogates).eval(), bounds=(0, 1), device=images.device)
    attack = _attack(foolbox, reference)
    parts = []
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(seed)
        for rows in torch.arange(len(images), device=images.device).split(batch):
            criterion = (
                foolbox.Misclassification(labels[rows])
                if goals is None
                else foolbox.TargetedMisclassification(goals[rows])
            )
            pictures = images[rows].float() / 255
            parts.append(attack.run(model, pictures, criterion, epsilon=reference.budget / 255))
    return (255 * torch.cat(parts).detach()).round().byte()


class MeanLogits(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] to the mean of the models' logits ``(B, C)``."""

    def __init__(self, models: Sequence[Classifier]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([model(images).logits for model in self.models]).mean(0)


def _foolbox() -> Any:
    try:
        import foolbox
    except ModuleNotFoundError as error:
        raise MissingExtra("foolbox", "pixel") from error
    return foolbox


def _attack(foolbox: Any, reference: Reference) -> Any:
    if reference.method == "pgd":
        return foolbox.attacks.LinfProjectedGradientDescentAttack(rel_stepsize=1 / 16, steps=40, random_start=True)
    return foolbox.attacks.LinfMomentumIterativeFastGradientMethod(
        momentum=1.0, rel_stepsize=0.2, steps=10, random_start=False
    )
