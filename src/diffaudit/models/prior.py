"""Any diffusion pipeline of diffusers' layout as four plain functions: encode, predict noise, step, decode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.conditioning import Condition, IdentityProjector, TextConditioner
from diffaudit.models.exported_autoencoder import ExportedAutoencoder
from diffaudit.models.label_words import LabelWords
from diffaudit.models.prior_folder import read_components, write_components

PREDICTIONS = ("epsilon", "v_prediction", "sample")


class DiffusionPrior(nn.Module):
    """A latent diffusion model under a text and an identity condition.

    Images are ``(B, 3, H, W)`` in [0, 1]; latents ``(B, c, h, w)`` are standardised by the autoencoder's own shift and
    scale; ``timesteps (B,)`` are integers, 0 clean and ``T - 1`` noise. Models that predict noise, velocity or the
    clean sample (``prediction_type`` of the scheduler) all answer in noise here.

    Args:
        autoencoder: a diffusers autoencoder, ours, ``AutoencoderKL`` (the mean of its posterior is used) or exported.
        unet: a ``UNet2DConditionModel``.
        scheduler: any diffusers scheduler with ``alphas_cumprod``; only its noise schedule is used.
        text: turns prompts into tokens; None if the model knows no text.
        projector: turns identity embeddings into tokens; None if the model knows no identity.

    Attributes:
        words: the prompt in which vectors stand for a class, where classes are sought by textual inversion.
        face_dimension: size of the embeddings that an IP-Adapter of the UNet reads; None where it has none.
    """

    # Parts of diffusers: their own types are loose and differ from class to class.
    autoencoder: Any
    unet: Any

    def __init__(
        self,
        autoencoder: nn.Module,
        unet: nn.Module,
        scheduler: Any,
        *,
        text: TextConditioner | None = None,
        projector: IdentityProjector | None = None,
    ) -> None:
        super().__init__()
        if text is None and projector is None:
            raise InvalidSetting("prior", "know a text or an identity condition", "neither")
        self.words: LabelWords | None = None
        self.face_dimension: int | None = None
        self.autoencoder, self.unet, self.text, self.projector = autoencoder, unet, text, projector
        self.scheduler = scheduler
        self.prediction_type = getattr(scheduler.config, "prediction_type", None)
        if self.prediction_type not in PREDICTIONS:
            raise InvalidSetting("prediction_type", f"be one of {', '.join(PREDICTIONS)}", self.prediction_type)
        if not hasattr(scheduler, "alphas_cumprod"):
            raise InvalidSetting("scheduler", "have a variance schedule `alphas_cumprod`", type(scheduler).__name__)
        self.register_buffer("alphas_cumprod", scheduler.alphas_cumprod.clone().float(), persistent=False)
        self.alphas_cumprod: Tensor
        config = autoencoder.config
        _require_fit(config, unet)
        self._scale = float(getattr(config, "scaling_factor", None) or 1.0)
        self._shift = float(getattr(config, "shift_factor", None) or 0.0)

    @classmethod
    def load(cls, location: str | Path, *, autoencoder: ExportedAutoencoder | None = None) -> Self:
        """Opens a folder of diffusers' layout, or a hub id; safetensors only. Weights are read into float32.

        An ``autoencoder`` takes the place of the folder's ``vae``, which needs not be there; of its ``config.json``, if
        there is one, shift and scale are read.

        Raises:
            InvalidSetting: the folder holds no ``model_index.json`` or lacks an autoencoder, UNet or scheduler; the
                autoencoder's latents have other channels than the UNet, or are not those that it was trained on.
        """
        parts = read_components(location, autoencoder=autoencoder)
        text = TextConditioner(parts["tokenizer"], parts["text_encoder"]) if "text_encoder" in parts else None
        projector = parts.get("identity_projector")
        prior = cls(parts["vae"], parts["unet"], parts["scheduler"], text=text, projector=projector)
        # diffusers widens weights kept in half precision, transformers does not.
        return prior.float().eval().requires_grad_(False)

    def save(self, folder: str | Path) -> None:
        """Writes diffusers' layout: a folder a component and ``model_index.json``.

        Raises:
            InvalidSetting: the UNet holds adapters, which would be written in a form that no UNet reads back; an
                IP-Adapter, which has a file of its own.
        """
        if self.face_dimension is not None:
            rule = "have no IP-Adapter when it is saved, which diffusers keeps in a file of its own"
            raise InvalidSetting("prior", rule, "one of FaceID")
        if any(".lora_" in name for name, _ in self.unet.named_parameters()):
            raise InvalidSetting("prior", "hold no adapters when it is saved", "LoRA layers", "Merge them: merge_lora.")
        parts: dict[str, Any] = {"vae": self.autoencoder, "unet": self.unet, "scheduler": self.scheduler}
        if self.text is not None:
            parts |= {"tokenizer": self.text.tokenizer, "text_encoder": self.text.encoder}
        if self.projector is not None:
            parts["identity_projector"] = self.projector
        write_components(parts, Path(folder))

    @property
    def num_train_timesteps(self) -> int:
        """``T``."""
        return len(self.alphas_cumprod)

    def encode(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [0, 1] to standardised latents ``(B, c, h, w)``, without randomness."""
        encoded = self.autoencoder.encode(images * 2 - 1)
        latents: Tensor = encoded if isinstance(encoded, Tensor) else _mean_latent(encoded)
        return (latents - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Standardised latents to images about [0, 1], not clamped, so that gradients pass everywhere."""
        decoded = self.autoencoder.decode(latents / self._scale + self._shift)
        images: Tensor = decoded if isinstance(decoded, Tensor) else decoded.sample
        return images / 2 + 0.5

    @property
    def dimension(self) -> int | None:
        """``D`` of the embeddings by which it is asked for a class; None where it knows text alone."""
        if self.words is not None:
            return self.words.dimension
        return self.face_dimension if self.projector is None else self.projector.dimension

    def condition(self, embeddings: Tensor | None, count: int, prompt: str | Sequence[str] = "") -> Condition:
        """The condition of ``count`` images: identity ``embeddings (count, D)`` (None: no identity) and a prompt.

        Text tokens come first, identity tokens after them. One prompt serves all images, or one each. Where the prior
        has :attr:`words`, embeddings are word vectors, and the prompt is the one in which they have their place.
        """
        identity = None if self.words is not None else embeddings
        tokens, pooled = [], None
        if self.words is not None and embeddings is not None:
            tokens.append(self.words(embeddings))
        elif self.text is not None:
            prompts = [prompt] if isinstance(prompt, str) else list(prompt)
            encoded = self.text(prompts)
            tokens.append(encoded.expand(count, -1, -1) if len(prompts) == 1 else encoded)
        if self.projector is not None:
            projected = self.projector(self._or_nobody(identity, count, self.projector.dimension))
            tokens.append(projected.tokens)
            pooled = projected.pooled
        face = None if self.face_dimension is None else self._or_nobody(identity, count, self.face_dimension)
        return Condition(torch.cat(tokens, dim=1), pooled, face)

    def _or_nobody(self, identity: Tensor | None, count: int, dimension: int) -> Tensor:
        """The identity, or the zeros ``(count, dimension)`` that stand for none."""
        return self.alphas_cumprod.new_zeros(count, dimension) if identity is None else identity

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        r""":math:`z_t = \sqrt{\bar\alpha_t} z_0 + \sqrt{1 - \bar\alpha_t} \epsilon`."""
        signal, spread = self._levels(timesteps)
        return signal * latents + spread * noise

    def epsilon(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """The noise ``(B, c, h, w)`` that the model sees in ``latents`` at ``timesteps (B,)``."""
        labels = condition.pooled if self.unet.config.class_embed_type == "projection" else None
        faces = None if condition.identity is None else {"image_embeds": [condition.identity[:, None]]}
        output: Tensor = self.unet(
            latents,
            timesteps,
            encoder_hidden_states=condition.tokens,
            class_labels=labels,
            added_cond_kwargs=faces,
            return_dict=False,
        )[0]
        if self.prediction_type == "epsilon":
            return output
        signal, spread = self._levels(timesteps)
        if self.prediction_type == "v_prediction":
            return signal * output + spread * latents
        return (latents - signal * output) / spread.clamp(min=1e-4)

    def guided_epsilon(
        self, latents: Tensor, timesteps: Tensor, condition: Condition, null: Condition | None, scale: float
    ) -> Tensor:
        r"""Classifier-free guidance :math:`\epsilon_0 + s (\epsilon_c - \epsilon_0)` in one batched call.

        At ``scale`` 1, or without a null condition, only the condition is asked. Ho and Salimans, *Classifier-Free
        Diffusion Guidance*, 2022, arXiv 2207.12598.
        """
        if null is None or scale == 1:
            return self.epsilon(latents, timesteps, condition)
        both = self.epsilon(latents.repeat(2, 1, 1, 1), timesteps.repeat(2), null.followed_by(condition))
        without, with_condition = both.chunk(2)
        return without + scale * (with_condition - without)

    def clean(self, latents: Tensor, epsilon: Tensor, timesteps: Tensor) -> Tensor:
        r"""The clean latent of ``epsilon``, :math:`(z_t - \sqrt{1 - \bar\alpha_t}\epsilon)/\sqrt{\bar\alpha_t}`."""
        signal, spread = self._levels(timesteps)
        return (latents - spread * epsilon) / signal.clamp(min=1e-3)

    def ddim_step(self, latents: Tensor, epsilon: Tensor, timesteps: Tensor, onward: Tensor) -> Tensor:
        """One deterministic step from ``timesteps (B,)`` to ``onward (B,)``; -1 stands for the clean latent.

        Song, Meng and Ermon, *Denoising Diffusion Implicit Models*, 2021, arXiv 2010.02502, equation 12 with eta 0.
        """
        clean = self.clean(latents, epsilon, timesteps)
        signal, spread = self._levels(onward)
        return signal * clean + spread * epsilon

    def timesteps(self, steps: int, strength: float) -> list[int]:
        """``steps`` falling time steps, evenly spaced from ``strength`` of the way to noise down towards 0.

        ``strength`` 1 begins at ``T - 1``; the step after the last one is the clean latent.

        Raises:
            InvalidSetting: ``steps`` below 1 or ``strength`` outside (0, 1].
        """
        if steps < 1:
            raise InvalidSetting("steps", "be a positive integer", steps)
        if not 0 < strength <= 1:
            raise InvalidSetting("strength", "be in (0, 1]", strength)
        top = strength * self.num_train_timesteps
        return [max(0, round(top * (steps - index) / steps) - 1) for index in range(steps)]

    def _levels(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        kept = torch.where(timesteps < 0, 1.0, self.alphas_cumprod[timesteps.clamp(min=0)])[:, None, None, None]
        return kept.sqrt(), (1 - kept).sqrt()


def _require_fit(autoencoder: Any, unet: Any) -> None:
    """Refuses a UNet that must be told more than a prompt and a face, and latents of other channels than its own."""
    if getattr(unet.config, "addition_embed_type", None) not in (None, "text"):
        rule = "have a UNet that is told of a time and of tokens alone"
        hint = "One of the SDXL family, which is told of sizes and pooled text too, cannot be used."
        raise InvalidSetting("prior", rule, unet.config.addition_embed_type, hint)
    given, wanted = getattr(autoencoder, "latent_channels", None), getattr(unet.config, "in_channels", None)
    if None not in (given, wanted) and given != wanted:
        rule = f"have latents of as many channels as the prior's UNet, {wanted}"
        raise InvalidSetting("prior.autoencoder", rule, given)


def _mean_latent(encoded: Any) -> Tensor:
    latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return latents
