"""What the attack holds, and nothing else: the threat model as an object."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.attributes import AttributeEstimator
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior

HAS = (
    "the target classifier: architecture, weights, gradients, penultimate features",
    "the list of class indices",
    "public pictures of people who are not in the target's training set",
    "models trained on public data: a diffusion prior, an identity encoder, attribute and perceptual features",
)
HAS_NOT = ("a private picture", "a private embedding", "the judges")


@dataclass(frozen=True, eq=False)
class PublicPictures:
    """Public ``images (N, 3, H, W) uint8`` and what the attacker's models say of them.

    ``log_probabilities (N, C)`` and ``features (N, P)`` (None where hidden) are the target's, ``embeddings (N, D)`` the
    identity encoder's.
    """

    images: Tensor
    log_probabilities: Tensor
    features: Tensor | None
    embeddings: Tensor

    def __len__(self) -> int:
        return len(self.images)

    @property
    def num_classes(self) -> int:
        """How many classes the target tells apart."""
        return self.log_probabilities.shape[1]

    def at(self, rows: Tensor) -> Tensor:
        """Pictures ``rows`` as floats in [0, 1]."""
        return self.images[rows].float() / 255

    def best(self, classes: Tensor, count: int) -> Tensor:
        """``(n, count)`` numbers of the pictures that the target scores highest for each of ``classes (n,)``."""
        if count > len(self):
            raise InvalidSetting("anchor_images", f"be at most the number of public pictures ({len(self)})", count)
        return self.log_probabilities[:, classes].topk(count, dim=0).indices.T


@dataclass(frozen=True, eq=False)
class Attacker:
    """White-box target, prior, public models and public pictures; ``classes (n,)`` are the target's indices sought."""

    classes: Tensor
    classifier: Classifier
    prior: DiffusionPrior
    encoder: IdentityEncoder
    attributes: AttributeEstimator
    perceptual: PerceptualFeatures
    public: PublicPictures
    prompt: str = ""

    def pseudo_anchors(self, count: int) -> Tensor:
        """``(n, D)`` unit mean embeddings of the ``count`` public pictures that the target scores highest for each."""
        best = self.public.best(self.classes, count)
        return nn.functional.normalize(self.public.embeddings[best].mean(1), dim=1)

    def pseudo_centres(self, count: int) -> Tensor | None:
        """``(n, P)`` mean target features of the same pictures; None where the target hides its features."""
        if self.public.features is None:
            return None
        return self.public.features[self.public.best(self.classes, count)].mean(1)


@torch.no_grad()
def look_at(images: Tensor, classifier: Classifier, encoder: IdentityEncoder, *, batch: int = 128) -> PublicPictures:
    """Shows public byte images ``(N, 3, H, W)`` to the target and the identity encoder once."""
    scores, features, embeddings = [], [], []
    for part in images.split(batch):
        pictures = part.float() / 255
        outputs = classifier(pictures)
        scores.append(outputs.logits.log_softmax(1))
        if outputs.features is not None:
            features.append(outputs.features)
        embeddings.append(encoder(pictures))
    return PublicPictures(images, torch.cat(scores), torch.cat(features) if features else None, torch.cat(embeddings))
