"""The generator under training: a frozen prior, low-rank adapters in its UNet, and a label embedding."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.inversion.embedding import LabelEmbedding
from diffaudit.models.conditioning import Condition, IdentityProjector
from diffaudit.models.label_words import LabelWords
from diffaudit.models.prior import DiffusionPrior
from diffaudit.models.sampler import Guide, ddim

LORA_TARGETS = r".*(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|conv_shortcut)"
"""Attention projections, self and cross, and the 1 x 1 convolutions around them."""


def add_lora(prior: DiffusionPrior, *, rank: int, alpha: int, seed: int) -> list[nn.Parameter]:
    """Puts adapters into the prior's UNet and returns their parameters. Until a step is taken they change nothing.

    Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models*, 2021, arXiv 2106.09685.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior.unet.add_adapter(LoraConfig(r=rank, lora_alpha=alpha, target_modules=LORA_TARGETS))
    return lora_parameters(prior)


def lora_parameters(prior: DiffusionPrior) -> list[nn.Parameter]:
    """The adapters' matrices, A and B alternately; empty where there are none."""
    return [parameter for name, parameter in prior.unet.named_parameters() if ".lora_" in name]


def merge_lora(prior: DiffusionPrior) -> None:
    """Folds the adapters into the weights and takes them out, for export. The outputs stay the same up to rounding."""
    if lora_parameters(prior):
        prior.unet.fuse_lora()
        prior.unet.unload_lora()


@contextmanager
def without_lora(prior: DiffusionPrior) -> Iterator[None]:
    """The prior with its adapters off."""
    layers = [module for module in prior.unet.modules() if isinstance(module, BaseTunerLayer)]
    trained = [(parameter, parameter.requires_grad) for parameter in lora_parameters(prior)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)
        # peft marks every adapter as trainable here, also those that the stage has frozen.
        for parameter, flag in trained:
            parameter.requires_grad_(flag)


def published_projector(prior: DiffusionPrior) -> dict[str, Tensor]:
    """A copy of the projector's weights, to be taken before anything trains; empty where there is no projector."""
    return {} if prior.projector is None else {k: v.clone() for k, v in prior.projector.state_dict().items()}


@contextmanager
def as_published(prior: DiffusionPrior, projector: Mapping[str, Tensor]) -> Iterator[None]:
    """The prior as it was published, for the rows that are compared with the attack.

    Its adapters are off, and its projector has the weights that :func:`published_projector` gave.
    """
    trained = published_projector(prior)
    with without_lora(prior):
        try:
            if prior.projector is not None:
                prior.projector.load_state_dict(projector)
            yield
        finally:
            if prior.projector is not None:
                prior.projector.load_state_dict(trained)


class Generator:
    """``x_hat = G(source, e; t)``: noise a public picture, denoise it under an identity, decode.

    Args:
        prior: the diffusion model, with or without adapters.
        prompt: the text that every picture is asked for.
    """

    def __init__(self, prior: DiffusionPrior, *, prompt: str = "") -> None:
        self.prior = prior
        self.prompt = prompt

    def conditions(self, embeddings: Tensor, guidance_scale: float) -> tuple[Condition, Condition | None]:
        """The condition of ``embeddings (B, D)``, and the null condition if guidance will ask for it."""
        condition = self.prior.condition(embeddings, len(embeddings), self.prompt)
        null = self.prior.condition(None, len(embeddings), "") if guidance_scale != 1 else None
        return condition, null

    def rollout(
        self,
        latents: Tensor,
        noise: Tensor,
        embeddings: Tensor,
        *,
        steps: int,
        strength: float,
        guidance_scale: float,
        gradient_steps: int | None = None,
        guide: Guide | None = None,
    ) -> Tensor:
        """:func:`~diffaudit.models.sampler.ddim` of ``latents``, ``noise (B, c, h, w)`` under ``embeddings (B, D)``."""
        condition, null = self.conditions(embeddings, guidance_scale)
        return ddim(
            self.prior,
            latents,
            noise,
            condition,
            null,
            steps=steps,
            strength=strength,
            guidance_scale=guidance_scale,
            gradient_steps=gradient_steps,
            guide=guide,
        )

    def one_step(
        self, latents: Tensor, noise: Tensor, embeddings: Tensor, timesteps: Tensor, *, guidance_scale: float
    ) -> Tensor:
        """The clean latent implied by a single prediction at ``timesteps (B,)``."""
        condition, null = self.conditions(embeddings, guidance_scale)
        noisy = self.prior.add_noise(latents, noise, timesteps)
        epsilon = self.prior.guided_epsilon(noisy, timesteps, condition, null, guidance_scale)
        return self.prior.clean(noisy, epsilon, timesteps)


def attach_projector(prior: DiffusionPrior, dimension: int, *, tokens: int = 4, seed: int) -> None:
    """Gives a prior that knows text alone a new identity projector of embeddings ``(B, dimension)``, untrained.

    Its ``tokens`` follow the prompt's in cross-attention. Until a stage has trained them they are noise to the prior:
    the pictures of row `start` then show what it draws without having met an identity.

    Raises:
        InvalidSetting: the UNet's cross-attention reads tokens of several sizes.
    """
    size = prior.unet.config.cross_attention_dim
    if not isinstance(size, int):
        raise InvalidSetting("attack.prior", "have a UNet that reads tokens of one size", size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = IdentityProjector(dimension, size, tokens=tokens)
    prior.projector = projector.eval().requires_grad_(False)


def seek_words(prior: DiffusionPrior, template: str, words: str) -> None:
    """Lets the prior be asked for a class by word vectors in the place of ``{label}``, which begin as ``words``.

    Raises:
        InvalidSetting: the prior knows no text; what :class:`~diffaudit.models.label_words.LabelWords` refuses.
    """
    if prior.text is None:
        raise InvalidSetting("embedding.kind", "be another than textual_inversion where the prior knows no text", None)
    prior.words = LabelWords(prior.text, template, words)


def check_embedding_fits(prior: DiffusionPrior, embedding: LabelEmbedding) -> None:
    """Refuses a prior that knows text alone, and a label embedding whose size is not the one that it is asked by."""
    wanted = prior.dimension
    if wanted is None:
        raise InvalidSetting(
            "attack.prior",
            "have an identity projector, by which it is asked for a person",
            None,
            "Take a prior that was trained with one (`diffaudit train prior` makes such a prior), or let a first stage "
            "train a new one (`trains: [projector, lora]` with `condition: image`), or name an IP-Adapter under "
            "`face_id`, or seek words: `embedding.kind: textual_inversion`.",
        )
    found = embedding.anchors.shape[1]
    if wanted != found:
        raise InvalidSetting(
            "encoder",
            f"give embeddings of the size that the prior is asked by ({wanted})",
            found,
            "Use the encoder that the prior or its adapter was trained with, or train a projector for this one.",
        )
