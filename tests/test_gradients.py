"""A model that an attack cannot follow is refused; before, such a run ended as if the model were robust."""

import pytest
import torch
from torch import Tensor, nn

from diffaudit.build.gradients import require_gradient
from diffaudit.errors import InvalidSetting

PICTURES = torch.full((1, 3, 4, 4), 0.5)
HEAD = nn.Linear(48, 2)


def logits(images: Tensor) -> Tensor:
    found: Tensor = HEAD(images.flatten(1))
    return found


def frozen(images: Tensor) -> Tensor:
    with torch.no_grad():
        return logits(images)


def constant(images: Tensor) -> Tensor:
    return logits(torch.zeros_like(images))


def broken(images: Tensor) -> Tensor:
    return logits(images) + (images - 0.5).flatten(1).sum(1, keepdim=True).sqrt()


def test_a_model_with_a_gradient_passes_also_where_nobody_asks_for_one() -> None:
    with torch.no_grad():
        require_gradient("surrogates.mine", logits, PICTURES)
    assert PICTURES.grad is None


@pytest.mark.parametrize(
    ("look", "fault"),
    [
        (frozen, "answer with a gradient, which the attack follows. Found 'an answer without one'"),
        (constant, "Found 'an answer that does not hang on the images'"),
        (broken, "Found 'a gradient that is not finite'"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(look: object, fault: str) -> None:
    with pytest.raises(InvalidSetting) as refused:
        require_gradient("surrogates.mine", look, PICTURES)  # type: ignore[arg-type]
    assert "`surrogates.mine` should" in str(refused.value)
    assert fault in str(refused.value)
