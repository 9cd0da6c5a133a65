"""Trains small latent diffusion models under a caption and, where faces are drawn, an identity embedding."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

from diffaudit.eight_bit import to_bytes
from diffaudit.errors import InvalidSetting
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.conditioning import Condition, IdentityProjector, TextConditioner
from diffaudit.models.prior import DiffusionPrior
from diffaudit.models.sampler import ddim
from diffaudit.training.tokenizers import word_tokenizer


@dataclass(frozen=True)
class Dropping:
    """How often training hides a condition, so that each can be absent when sampling.

    ``both`` of all examples lose both; else ``text`` lose their caption, and of those that keep it ``identity`` lose
    the embedding.
    """

    text: float = 0.5
    identity: float = 0.25
    both: float = 0.08


@dataclass(frozen=True, eq=False)
class LatentPool:
    """What the prior is trained on; each identity has ``per_identity`` consecutive rows.

    ``latents (N, c, h, w)`` are standardised, ``embeddings (N, D)`` unit vectors (None for a prior that knows no
    identity), ``token_ids (N, L)`` captions.
    """

    latents: Tensor
    embeddings: Tensor | None
    token_ids: Tensor
    per_identity: int


def small_prior(
    autoencoder: UnshuffleAutoencoder,
    *,
    vocabulary: Sequence[str],
    embedding_dim: int | None,
    widths: tuple[int, ...] = (96, 160),
    cross_attention_dim: int = 128,
) -> DiffusionPrior:
    """An untrained prior of the bundled size: velocity prediction on 8 x 8 latents, attention at 8 x 8 and 4 x 4."""
    return untrained_prior(
        autoencoder,
        word_tokenizer(vocabulary),
        latent_channels=autoencoder.config["latent_channels"],
        side=8,
        embedding_dim=embedding_dim,
        widths=widths,
        cross_attention_dim=cross_attention_dim,
    )


def untrained_prior(
    autoencoder: nn.Module,
    tokenizer: PreTrainedTokenizerFast,
    *,
    latent_channels: int,
    side: int,
    embedding_dim: int | None = None,
    widths: tuple[int, ...] = (96, 160),
    cross_attention_dim: int = 128,
) -> DiffusionPrior:
    """An untrained prior: velocity prediction on latents of ``side`` x ``side``, attention at every width.

    Each width after the first halves the side. A text encoder of two layers is trained along; the prior knows an
    identity where ``embedding_dim`` says of how many entries.
    """
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=cross_attention_dim,
            intermediate_size=2 * cross_attention_dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=tokenizer.model_max_length,
            projection_dim=cross_attention_dim,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )
    pooled = None if embedding_dim is None else cross_attention_dim
    unet = UNet2DConditionModel(
        sample_size=side,
        in_channels=latent_channels,
        out_channels=latent_channels,
        down_block_types=("CrossAttnDownBlock2D",) * len(widths),
        up_block_types=("CrossAttnUpBlock2D",) * len(widths),
        block_out_channels=widths,
        layers_per_block=1,
        attention_head_dim=4,
        norm_num_groups=16,
        cross_attention_dim=cross_attention_dim,
        class_embed_type=None if pooled is None else "projection",
        projection_class_embeddings_input_dim=pooled,
    )
    scheduler = DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False)
    projector = None if embedding_dim is None else IdentityProjector(embedding_dim, cross_attention_dim)
    return DiffusionPrior(autoencoder, unet, scheduler, text=TextConditioner(tokenizer, text), projector=projector)


class PriorTrainer(nn.Module):
    """The parts of a prior that are trained here: UNet, text encoder and, if any, identity projector.

    The autoencoder is not.
    """

    def __init__(self, prior: DiffusionPrior, dropping: Dropping | None = None) -> None:
        super().__init__()
        if prior.text is None:
            raise InvalidSetting("prior", "know a text condition", "a prior without one")
        self.unet, self.text, self.projector = prior.unet, prior.text, prior.projector
        self._prior = [prior]  # in a list: not a sub-module, so the frozen autoencoder stays out of checkpoints
        self._dropping = dropping or Dropping()

    def loss(self, pool: LatentPool, batch: int, generator: torch.Generator) -> Tensor:
        r"""Squared error of the velocity, weighted by :math:`\min(\mathrm{SNR}, 5)/(\mathrm{SNR} + 1)`.

        Salimans and Ho, *Progressive Distillation*, 2022, arXiv 2202.00512; Hang et al., *Min-SNR Weighting*, 2023,
        arXiv 2303.09556.
        """
        prior = self._prior[0]
        rows = torch.randint(len(pool.latents), (batch,), generator=generator)
        latents = pool.latents[rows]
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(prior.num_train_timesteps, (batch,), generator=generator)
        noisy = prior.add_noise(latents, noise, timesteps)
        condition = self._condition(pool, rows, generator)
        kept = prior.alphas_cumprod[timesteps][:, None, None, None]
        velocity = kept.sqrt() * noise - (1 - kept).sqrt() * latents
        predicted = self.unet(
            noisy, timesteps, encoder_hidden_states=condition.tokens, class_labels=condition.pooled, return_dict=False
        )[0]
        snr = prior.alphas_cumprod[timesteps] / (1 - prior.alphas_cumprod[timesteps])
        weight = snr.clamp(max=5) / (snr + 1)
        error = (predicted - velocity).square().mean((1, 2, 3))
        loss: Tensor = (weight * error).mean() / weight.mean()
        return loss

    def _condition(self, pool: LatentPool, rows: Tensor, generator: torch.Generator) -> Condition:
        """Captions of the rows and identity embeddings of *other* photographs of the same person, hidden at random.

        Without a projector there are captions alone.
        """
        count = len(rows)
        chance = torch.rand(count, 3, generator=generator)
        both = chance[:, 2] < self._dropping.both
        no_text = (chance[:, 0] < self._dropping.text) | both
        no_identity = ((chance[:, 1] < self._dropping.identity) & ~no_text) | both
        ids = torch.where(no_text[:, None], self._null_ids(pool.token_ids), pool.token_ids[rows])
        if self.projector is None:
            return Condition(self.text.encode(ids))
        if pool.embeddings is None:
            raise InvalidSetting("pool.embeddings", "be given for a prior that knows an identity", None)
        views = torch.randint(pool.per_identity, (count, 8), generator=generator)
        use = torch.randint(1, 9, (count, 1), generator=generator)
        mates = pool.embeddings[(rows // pool.per_identity * pool.per_identity)[:, None] + views]
        kept = (torch.arange(8) < use)[..., None]
        identity = nn.functional.normalize((mates * kept).sum(1), dim=1)
        projected = self.projector(identity * ~no_identity[:, None])
        return Condition(torch.cat([self.text.encode(ids), projected.tokens], dim=1), projected.pooled)

    def _null_ids(self, like: Tensor) -> Tensor:
        ids = torch.zeros(like.shape[1], dtype=like.dtype)
        ids[0], ids[1] = 1, 2
        return ids


@torch.no_grad()
def latent_rows(prior: DiffusionPrior, images: Tensor) -> Tensor:
    """Standardised latents of byte images ``(N, 3, H, W)``, computed in small batches."""
    return torch.cat([prior.encode(part.float() / 255) for part in images.split(256)])


@torch.no_grad()
def drawn_pictures(
    prior: DiffusionPrior,
    sources: Tensor,
    embeddings: Tensor,
    *,
    steps: int,
    strength: float,
    guidance_scale: float,
    seed: int,
) -> Tensor:
    """``(B, 3, H, W) uint8`` by DDIM from noised ``sources (B, 3, H, W)`` in [0, 1] under ``embeddings (B, D)``."""
    latents = prior.encode(sources)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))
    condition, null = (prior.condition(identity, len(latents)) for identity in (embeddings, None))
    drawn = ddim(prior, latents, noise, condition, null, steps=steps, strength=strength, guidance_scale=guidance_scale)
    return to_bytes(prior.decode(drawn))
