"""Attention maps of a UNet, recorded by exchanging the processors of chosen layers for the length of one call."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diffaudit.attention import AttentionLayer
from diffaudit.errors import InvalidSetting

WINDOW = (0.5, 0.9)
"""The progress between which attention is recorded by default: layout is settled before, details come after."""

_PLACES: dict[str, Literal["down", "mid", "up"]] = {"down_blocks": "down", "mid_block": "mid", "up_blocks": "up"}


def in_window(timestep: int, total: int, window: tuple[float, float] = WINDOW) -> bool:
    """Whether the progress ``1 - timestep / (total - 1)`` lies in ``window``, both ends included.

    >>> [timestep for timestep in (999, 500, 499, 300, 100, 0) if in_window(timestep, 1000)]
    [499, 300, 100]

    Raises:
        InvalidSetting: for fewer than two time steps, a time step that is none of them, a window that is not in [0, 1].
    """
    if total < 2:
        raise InvalidSetting("total", "be the number of training time steps, at least 2", total)
    if not 0 <= timestep < total:
        raise InvalidSetting("timestep", f"be in [0, {total - 1}]", timestep)
    first, last = window
    if not 0 <= first <= last <= 1:
        raise InvalidSetting("window", "be two numbers in [0, 1], the smaller one first", window)
    return first <= 1 - timestep / (total - 1) <= last


def attention_layers(unet: Any) -> tuple[AttentionLayer, ...]:
    """The attention layers of a diffusers UNet's transformer blocks, in the order of its modules.

    Attention with keys of its own beside those of the condition, or over unflattened feature maps, is not listed: its
    maps have no column for each token.
    """
    return tuple(layer for layer, _ in _attentions(unet))


@contextmanager
def recorded_attention(unet: Any, layers: Collection[AttentionLayer]) -> Iterator[dict[AttentionLayer, Tensor]]:
    """Records the attention of ``layers`` in the one call of ``unet`` that is made inside, into the dictionary given.

    Maps are the probabilities that the call used, ``(B, heads, H*W, keys)``, after the layer's own scale, mask and
    precision, with gradient; rows sum to 1, so no term needs another softmax. ``keys`` are the condition's tokens for
    cross-attention and the places of the picture for self-attention. Layers that are not asked for keep their (fused)
    processors, and all are put back at the end, also after an exception. Adapters on the projections take part; fused
    projections are copies of the separate ones, which are read here. Of a processor that computes anything else than
    plain attention, the layer would forget that part for the length of the call.

    To save memory by recomputation, put this call and the UNet's into one function, let it return what it needs of the
    maps, and give that function to :func:`torch.utils.checkpoint.checkpoint`.

    >>> from diffaudit.models.attention import attention_layers, recorded_attention
    >>> from diffaudit.models.bundled import bundled_folder
    >>> from diffaudit.models.prior import DiffusionPrior
    >>> prior = DiffusionPrior.load(bundled_folder("prior"))
    >>> layers = [one for one in attention_layers(prior.unet) if one.kind == "cross" and one.place == "up"]
    >>> latents, timesteps = torch.zeros(2, 16, 8, 8), torch.tensor([300, 300])
    >>> with recorded_attention(prior.unet, layers) as maps:
    ...     _ = prior.epsilon(latents, timesteps, prior.condition(None, 2, "a portrait of a person"))
    >>> [tuple(map.shape) for map in maps.values()][-1]  # 26 tokens of text and 4 of identity
    (2, 4, 64, 30)

    Raises:
        InvalidSetting: for layers that the UNet does not have, whose processor has weights of its own, or in a UNet
            that recomputes its blocks during the backward pass; inside, for a second call.
    """
    known = dict(_attentions(unet))
    for layer in layers:
        if layer not in known:
            raise InvalidSetting("layers", "be layers of this UNet, as `attention_layers` lists them", layer.name)
        processor = known[layer].get_processor()
        if isinstance(processor, nn.Module) and next(processor.parameters(), None) is not None:
            raise InvalidSetting(
                "layers", "have processors without weights of their own", f"{type(processor).__name__} at {layer.name}"
            )
    if layers and torch.is_grad_enabled() and unet.is_gradient_checkpointing:
        raise InvalidSetting(
            "unet",
            "not recompute its blocks while they are recorded",
            "gradient checkpointing",
            "Disable it, and checkpoint the whole step with the recording inside.",
        )
    maps: dict[AttentionLayer, Tensor] = {}
    found = {layer: known[layer].get_processor() for layer in layers}
    try:
        for layer in found:
            known[layer].set_processor(_Recording(layer, maps))
        yield maps
    finally:
        for layer, processor in found.items():
            known[layer].set_processor(processor)


class _Recording:
    """Plain attention with explicit probabilities, which are kept."""

    def __init__(self, layer: AttentionLayer, maps: dict[AttentionLayer, Tensor]) -> None:
        self._layer = layer
        self._maps = maps

    def __call__(
        self,
        attention: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        if self._layer in self._maps:
            raise InvalidSetting(
                "unet", "be called once while its attention is recorded", "a second call", "Record each call by itself."
            )
        keyed = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        if encoder_hidden_states is not None and attention.norm_cross is not None:
            keyed = attention.norm_encoder_hidden_states(encoder_hidden_states)
        query, key, value = (
            projected.unflatten(2, (attention.heads, -1)).transpose(1, 2)
            for projected in (attention.to_q(hidden_states), attention.to_k(keyed), attention.to_v(keyed))
        )
        if attention.norm_q is not None:
            query = attention.norm_q(query)
        if attention.norm_k is not None:
            key = attention.norm_k(key)
        mask = attention.prepare_attention_mask(attention_mask, keyed.shape[1], len(keyed))
        if mask is not None and attention.upcast_attention:
            mask = mask.float()
        flat = attention.get_attention_scores(query.flatten(0, 1), key.flatten(0, 1), mask)
        probabilities = flat.unflatten(0, (-1, attention.heads))
        self._maps[self._layer] = probabilities
        output: Tensor = (probabilities @ value).transpose(1, 2).flatten(2)
        for part in attention.to_out:
            output = part(output)
        if attention.residual_connection:
            output = output + hidden_states
        output = output / attention.rescale_output_factor
        return output


def _attentions(unet: Any) -> Iterator[tuple[AttentionLayer, Any]]:
    """Layers and their modules: whatever takes a processor, has one key a token, and reads sequences."""
    keys = {name.removesuffix(".processor") for name in unet.attn_processors}
    for name, module in unet.named_modules():
        place = _PLACES.get(name.split(".")[0])
        if name not in keys or place is None:
            continue
        if any(getattr(module, part, None) is not None for part in ("add_k_proj", "group_norm", "spatial_norm")):
            continue
        kind: Literal["cross", "self"] = "cross" if module.is_cross_attention else "self"
        yield AttentionLayer(name, place, kind, _level(unet, name, place)), module


def _level(unet: Any, name: str, place: Literal["down", "mid", "up"]) -> int:
    """Halvings of the latent's side at a layer: every block on the way down but the last ends in one."""
    last = len(unet.config.down_block_types) - 1
    match place:
        case "down":
            return int(name.split(".")[1])
        case "mid":
            return last
        case "up":
            return last - int(name.split(".")[1])
