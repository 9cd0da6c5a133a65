"""The classifier under audit, whatever it is: logits and, where they can be had, penultimate features."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting


class Outputs(NamedTuple):
    """``logits (B, C)`` and penultimate ``features (B, P)``, or None where the model does not show them."""

    logits: Tensor
    features: Tensor | None


class Classifier(nn.Module):
    """A frozen model that maps images ``(B, 3, H, W)`` in [0, 1], of any size, to logits and features in one pass.

    The model is taken over: its parameters are frozen, and a hook stays on its last linear layer. Who needs it
    elsewhere hands over a copy, as :func:`~diffaudit.build.build_classifier` does with a module that it is given.

    Args:
        model: any module ``images -> logits (B, C)``; its normalisation is its own or given by ``mean`` and ``std``.
        size: the side, in pixels, that the model wants; images are resized to it, differentiably. None: as they come.
        fingerprint: SHA-256 of the weights; two models of the same fingerprint are the same model to an audit.
        mean: subtracted from every channel of an image in [0, 1].
        std: then divided by.
        no_features: why there are no features; None looks for the input of the model's last linear layer.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        size: int | None,
        fingerprint: str,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        both: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None,
        no_features: str | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.size = size
        self.fingerprint = fingerprint
        self._both = both
        self.no_features = no_features
        self.register_buffer("mean", torch.tensor(mean or (0.0, 0.0, 0.0))[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(std or (1.0, 1.0, 1.0))[:, None, None], persistent=False)
        self.mean: Tensor
        self.std: Tensor
        for parameter in self.parameters():
            parameter.requires_grad_(False)
        self._hooked: Tensor | None = None
        if both is None and no_features is None:
            last = last_linear(model)
            if last is None:
                self.no_features = "the model has no linear layer whose input could serve"
            else:
                last.register_forward_pre_hook(self._remember)

    def forward(self, images: Tensor) -> Outputs:
        prepared = resized(images, self.size)
        prepared = (prepared - self.mean) / self.std
        if self._both is not None:
            return Outputs(*self._both(prepared))
        logits = self.model(prepared)
        if logits.ndim != 2:
            raise InvalidSetting("target", "answer with logits of shape (B, C)", tuple(logits.shape))
        features, self._hooked = self._hooked, None
        return Outputs(logits, features)

    def logits(self, images: Tensor) -> Tensor:
        """``(B, C)``."""
        return self.forward(images).logits

    @property
    def class_rows(self) -> Tensor | None:
        """``(C, P)`` the last linear layer's weights, a class a row; None where they cannot be had."""
        last = None if self._both is not None or self.no_features else last_linear(self.model)
        return None if last is None else last.weight.detach()

    def _remember(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._hooked = inputs[0] if inputs[0].ndim == 2 else None


def resized(images: Tensor, size: int | None) -> Tensor:
    """Images ``(B, 3, H, W)`` as ``(B, 3, size, size)``, bilinear and antialiased; untouched if they fit or at None."""
    if size is None or images.shape[-2:] == (size, size):
        return images
    return nn.functional.interpolate(images, (size, size), mode="bilinear", antialias=True, align_corners=False)


def last_linear(model: nn.Module) -> nn.Linear | None:
    """The last linear layer in order of registration, or None."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return layers[-1] if layers else None
