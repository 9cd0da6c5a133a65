"""Where a perturbation may act: masks from the prior's attention or from what an ensemble looks at."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffaudit.attention import AttentionBranch, AttentionLayer
from diffaudit.errors import InvalidSetting
from diffaudit.models.classifier import Classifier
from diffaudit.terms.attention_maps import label_map, resized_map, resized_picture


def attention_mask(label_map: Tensor, side: int, *, threshold: float | None = None) -> Tensor:
    r"""Return where the clean picture attends to its label, from 0 at the least place to 1 at the most.

    .. math:: M_{b,s} = \frac{A_{b,s} - \min A_b}{\max A_b - \min A_b}

    Shapes ``(B, HW) -> (B, 1, side, side)``; range [0, 1]; detached, for a mask is no way out for the attack. With a
    ``threshold`` it is 0 below and 1 from there on. A map without a least and a most place excludes nothing: all 1.

    Raises:
        InvalidSetting: for a map that is no square, a threshold outside (0, 1].

    >>> attention_mask(torch.tensor([[0.1, 0.2, 0.3, 0.5]]), 2).flatten()
    tensor([0.0000, 0.2500, 0.5000, 1.0000])
    """
    return _normalised(resized_map(label_map.detach(), side).unflatten(1, (1, side, side)), threshold)


def label_attention(branch: AttentionBranch, layers: Mapping[AttentionLayer, float]) -> Tensor:
    r"""Return what each place gives to the label, on average over the recorded steps, each layer by its weight.

    .. math:: \frac{1}{T} \sum_t \frac{\sum_l w_l A^{t,l}_{b,s}}{\sum_l w_l}

    Shape ``(B, HW)``, on the finest grid among ``layers``, to which the others are brought first; range [0, 1]. Layers
    that are recorded and not named, as another reader's are, count for nothing.

    Raises:
        InvalidSetting: for no layers, for one that was not recorded at every step.
    """
    if not layers or not branch.steps or any(layer not in step for step in branch.steps for layer in layers):
        raise InvalidSetting("mask.kind", "be another where its cross-attention is not recorded", "attention")
    seen = {layer: [label_map(step[layer], branch.label) for step in branch.steps] for layer in layers}
    side = max(math.isqrt(maps[0].shape[1]) for maps in seen.values())
    means = [weight * resized_map(torch.stack(seen[layer]).mean(0), side) for layer, weight in layers.items()]
    return torch.stack(means).sum(0) / sum(layers.values())


def grad_cam(
    classifiers: Sequence[Classifier], images: Tensor, target: Tensor, side: int, *, threshold: float | None = None
) -> Tensor:
    r"""Return where the classifiers of an ensemble find their evidence for ``target``, each normalised, averaged.

    .. math:: \frac{1}{M} \sum_m \nu\left(\max\Big(0, \sum_c \alpha_c F^m_c\Big)\right), \qquad
        \alpha_c = \frac{1}{hw} \sum_{ij} \frac{\partial l_y}{\partial F^m_{cij}}

    Shapes ``(B, 3, H, W), (B,) -> (B, 1, side, side)``; range [0, 1]; detached. :math:`F` are a model's last feature
    maps that are more than one place high and wide, before any pooling to a fixed size, :math:`\nu` is the
    normalisation of :func:`attention_mask`, and so is ``threshold``, taken of the average.

    Paper: Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra, "Grad-CAM: Visual Explanations from Deep Networks via
    Gradient-based Localization" (2016, arXiv:1610.02391), equations 1 and 2.

    Raises:
        InvalidSetting: for no classifier, for one that shows no feature maps: an exported program, a model that ends in
            tokens, or in maps whose channels stand last; for a threshold outside (0, 1].
    """
    if not classifiers:
        raise InvalidSetting("classifiers", "hold at least one classifier", 0)
    normalised = [_normalised(resized_picture(_cam(model, images, target), side), None) for model in classifiers]
    return _cut(torch.stack(normalised).mean(0), threshold)


def blend(latents: Tensor, clean_latents: Tensor, mask: Tensor) -> Tensor:
    r"""Return the perturbed latent inside the mask and the clean one outside, so that the background stays.

    .. math:: M z + (1 - M) z_{\text{clean}}

    Shapes ``(B, c, h, w), (B, c, h, w), (B, 1, h, w) -> (B, c, h, w)``.

    Raises:
        InvalidSetting: for shapes that do not fit.

    >>> ones, zeros = torch.ones(1, 1, 1, 2), torch.zeros(1, 1, 1, 2)
    >>> blend(ones, zeros, torch.tensor([[[[0.25, 1.0]]]]))
    tensor([[[[0.2500, 1.0000]]]])
    """
    if latents.shape != clean_latents.shape:
        raise InvalidSetting("clean_latents", f"have the latents' shape, {tuple(latents.shape)}", clean_latents.shape)
    images, _, height, width = latents.shape
    if mask.shape != (images, 1, height, width):
        raise InvalidSetting("mask", f"be one plane per image, {(images, 1, height, width)}", tuple(mask.shape))
    return torch.lerp(clean_latents, latents, mask.to(latents).expand_as(latents))


def _cam(classifier: Classifier, images: Tensor, target: Tensor) -> Tensor:
    """``(B, 1, h, w)``, not normalised."""
    with torch.enable_grad(), _watched(classifier.model) as outputs:
        logits = classifier.logits(images.detach().requires_grad_())
        if fault := _fault(outputs, images):
            raise InvalidSetting(
                "classifiers",
                "show feature maps for Grad-CAM",
                fault,
                "Take the mask from attention; a gradient of the image is another thing and is not offered for it.",
            )
        chosen = logits.gather(1, target[:, None]).sum()
        (gradient,) = torch.autograd.grad(chosen, outputs[-1])
    return F.relu((gradient.mean((2, 3), keepdim=True) * outputs[-1].detach()).sum(1, keepdim=True))


def _fault(outputs: Sequence[Tensor], images: Tensor) -> str:
    """Why the last of ``outputs`` is no map of the pictures; empty where it is one."""
    if not outputs:
        return "one without modules that return any"
    last = outputs[-1].shape
    if len(last) != 4:
        return "one that ends in tokens"
    height, width = images.shape[2:]
    return "" if last[2] * width == last[3] * height else "one whose channels stand last"


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Every output of a module that still has places, in order: maps ``(B, C, h, w)`` or tokens ``(B, N, D)``.

    What is pooled to a fixed size is left out: halves of a picture, say, are places of no picture in particular.
    """
    outputs: list[Tensor] = []

    def keep(module: nn.Module, _: tuple[object, ...], output: object) -> None:
        if isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) or not isinstance(output, Tensor):
            return
        if (output.ndim == 4 and min(output.shape[2:]) > 1) or (output.ndim == 3 and output.shape[1] > 1):
            outputs.append(output)

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


def _normalised(maps: Tensor, threshold: float | None) -> Tensor:
    least, most = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    spread = most - least
    even = spread <= 0
    return _cut(((maps - least) / spread.masked_fill(even, 1.0)).masked_fill(even, 1.0), threshold)


def _cut(mask: Tensor, threshold: float | None) -> Tensor:
    if threshold is None:
        return mask
    if not 0 < threshold <= 1:
        raise InvalidSetting("threshold", "be in (0, 1]", threshold)
    return (mask >= threshold).to(mask)
