"""What pulls the latent toward fooling: the surrogates' gradients at the image, made one and pulled back."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffaudit.models.classifier import Classifier
from diffaudit.perturbation.ensemble import EnsembleRule, Look, fused, image_gradients
from diffaudit.perturbation.steps import pull_back
from diffaudit.perturbation.transforms import View


@dataclass(frozen=True, eq=False)
class Drive:
    """What pulls the latent toward fooling: the surrogates' loss, the rule that makes one of many, and its weight.

    Attributes:
        loss: logits ``(B, C)`` of one surrogate to ``(B,)``, to be lowered.
        rule: of the ensemble; a new one for every batch.
        weight: by iteration.
        unit: whether the pulled-back gradient is brought to length 1 per image before it is weighed.
        in_latent: whether gradients are compared at the latent, with one pull-back a model, and not at the image.
        of_logits: whether the surrogates are :func:`.fused` into one model first, so that the rule has one gradient.
    """

    loss: Look
    rule: EnsembleRule
    weight: Callable[[int], float]
    unit: bool = True
    in_latent: bool = False
    of_logits: bool = False

    def pulled(
        self,
        surrogates: Mapping[str, Classifier],
        image: Tensor,
        latents: Tensor,
        views: Sequence[View],
        margins: Tensor,
        number: int,
        rows: Tensor,
    ) -> Tensor:
        """The surrogates' combined gradient at the latent, by its weight at iteration ``number``.

        Args:
            surrogates: the ``M`` models.
            image: ``(B, 3, H, W)``, made of ``latents (B, c, h, w)``; its graph is kept for the terms.
            latents: what moves.
            views: random views under which the models look too; none: they look at the image alone.
            margins: ``(M, B)`` by which each is fooled.
            number: of the iteration, from 0.
            rows: of the pictures that are still moved; the others have a gradient of 0.
        """
        models: list[Look] = [_shown(rows, model.logits) for model in surrogates.values()]
        asked = [fused(models)] if self.of_logits else models
        gradients, losses = image_gradients(asked, image, self.loss, views=views)
        if self.in_latent:
            gradients = torch.stack([pull_back(image, latents, one, retain_graph=True) for one in gradients])
            pulled = self.rule(gradients, losses, margins).gradient
        else:
            pulled = pull_back(image, latents, self.rule(gradients, losses, margins).gradient, retain_graph=True)
        if self.unit:
            length = pulled.flatten(1).norm(dim=1).clamp(min=torch.finfo(pulled.dtype).tiny)
            pulled = pulled / length[:, None, None, None]
        weighed: Tensor = self.weight(number) * pulled
        return weighed


def _shown(rows: Tensor, look: Look) -> Look:
    """A model that is shown ``rows`` alone: the logits of the others are 0, and have no gradient."""

    def seen(images: Tensor) -> Tensor:
        logits = look(images[rows])
        return logits.new_zeros(len(images), logits.shape[1]).index_copy(0, rows, logits)

    return seen
