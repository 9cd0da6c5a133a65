"""The iterate of every picture that is kept: the best one so far, or the last one."""

import torch
from torch import Tensor

from diffaudit.eight_bit import to_bytes
from diffaudit.models.perceptual import PerceptualFeatures, perceptual_distance
from diffaudit.perturbation.plans import BudgetPlan
from diffaudit.perturbation.scene import Scene


class Best:
    """The iterate of every picture of a scene that is kept; before the first, what the way back returned to.

    An iterate's margin is that of the surrogate it fools least, its distance the perceptual one to the picture, both
    of the 8-bit image. With ``budget.keep`` best, an iterate takes the place of the one that is kept

    - where both are within ``budget.perceptual``: if its margin, counted up to ``budget.stop_margin``, is larger, or as
      large and it is nearer. So an iterate that barely fools does not stand for being near: such a one seldom fools a
      model that the attack does not hold;
    - where one of them is within: if it is that one;
    - where neither is: if it is nearer, whatever its margin.

    With ``last`` every iterate takes the place of the one before, as in the published attack.
    """

    def __init__(self, perceptual: PerceptualFeatures, scene: Scene, budget: BudgetPlan) -> None:
        count = len(scene.images)
        self._perceptual = perceptual
        self._pictures = scene.images
        self._cap = torch.inf if budget.perceptual is None else budget.perceptual
        self._enough = torch.inf if budget.stop_margin is None else budget.stop_margin
        self._last = budget.keep == "last"
        self.images = to_bytes(scene.unperturbed)
        self.latents = scene.latents
        self.margin = torch.full((count,), -torch.inf)
        self.distance = torch.full((count,), torch.inf)
        self._inside = torch.zeros(count, dtype=torch.bool)

    @property
    def reached(self) -> Tensor:
        """``(B,)`` whether the margin is enough, in a picture within the perceptual bound."""
        return self._inside & (self.margin >= self._enough)

    @torch.no_grad()
    def offer(self, image: Tensor, latents: Tensor, margins: Tensor, moving: Tensor) -> None:
        """Takes the iterates ``image (B, 3, H, W)`` of the pictures ``moving (B,)`` that are to be kept."""
        moving = moving & image.isfinite().flatten(1).all(1)
        judged = to_bytes(image)
        distance = perceptual_distance(self._perceptual, judged.float() / 255, self._pictures)
        margin, inside = margins.min(0).values, distance <= self._cap
        capped, before = margin.clamp(max=self._enough), self.margin.clamp(max=self._enough)
        nearer = distance < self.distance
        among_inside = (capped > before) | ((capped == before) & nearer)
        better = moving & (self._last | torch.where(self._inside, inside & among_inside, inside | nearer))
        self.images = torch.where(better[:, None, None, None], judged, self.images)
        self.latents = torch.where(better[:, None, None, None], latents, self.latents)
        self.margin = torch.where(better, margin, self.margin)
        self.distance = torch.where(better, distance, self.distance)
        self._inside = torch.where(better, inside, self._inside)
