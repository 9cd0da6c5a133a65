"""IP-Adapter FaceID: published weights that teach a text-conditioned UNet of diffusers to draw an identity embedding.

Ye et al., *IP-Adapter: Text Compatible Image Prompt Adapter for Text-to-Image Diffusion Models*, 2023,
arXiv 2308.06721. Such a UNet reads the embedding in cross-attention of its own, beside that of the text.
"""

from pathlib import Path
from typing import Any

from torch import Tensor

from diffaudit.errors import InvalidSetting
from diffaudit.models.checkpoints import read_state
from diffaudit.models.prior import DiffusionPrior

KEY = "attack.prior.face_id"
PROJECTION = ("proj.0.weight", "proj.0.bias", "proj.2.weight", "proj.2.bias", "norm.weight", "norm.bias")
"""What an adapter that reads one identity embedding projects it by, into :data:`TOKENS` tokens."""
TOKENS = 4


def attach_face_id(prior: DiffusionPrior, path: Path, *, scale: float = 1.0) -> None:
    """Gives the prior's UNet the adapter in ``path``, by which it is asked for an identity.

    Low-rank changes of the UNet that come with the adapter are merged into its weights.

    Args:
        prior: knows text alone.
        path: a checkpoint with the parts ``image_proj`` and ``ip_adapter``, plain tensors alone.
        scale: by how much the adapter's attention counts beside the text's.

    Raises:
        InvalidSetting: the prior has an identity projector; the checkpoint is no FaceID adapter, or of another UNet.
        UnsafeArchive: the checkpoint holds more than tensors.
    """
    if prior.projector is not None:
        raise InvalidSetting(KEY, "be left out where the prior has an identity projector of its own", str(path))
    state = _parts(read_state(path, KEY))
    projection = state["image_proj"]
    tokens = (
        len(projection["proj.2.bias"]) // len(projection["norm.bias"]) if set(projection) == set(PROJECTION) else None
    )
    if tokens != TOKENS:
        rule = f"be an IP-Adapter FaceID, whose projection reads one identity embedding, as {TOKENS} tokens"
        remedy = "The form Plus reads a picture beside it, Portrait several embeddings, the others pictures alone."
        raise InvalidSetting(KEY, rule, str(path), remedy)
    unet = prior.unet
    try:
        unet._load_ip_adapter_weights([state], low_cpu_mem_usage=False)
        for changes in unet._load_ip_adapter_loras([state]).values():
            unet.load_lora_adapter(changes, prefix="unet", adapter_name="face_id")
            unet.fuse_lora()
            unet.unload_lora()
    except (KeyError, RuntimeError, ValueError) as error:
        raise InvalidSetting(KEY, "fit the prior's UNet", str(path), f"It says: {error}") from error
    for processor in unet.attn_processors.values():
        if hasattr(processor, "to_k_ip"):
            processor.scale = [scale]
    prior.face_dimension = projection["proj.0.weight"].shape[1]
    prior.float().eval().requires_grad_(False)


def _parts(state: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    """The adapter's two parts, whose tensors are nested in a checkpoint of torch and named by a dot in safetensors."""
    parts: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for name, part in parts.items():
        nested = state.get(name)
        flat = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
        part.update(nested if isinstance(nested, dict) else flat)
    if not all(parts.values()):
        rule = f"hold the parts {' and '.join(parts)} of an IP-Adapter"
        raise InvalidSetting(KEY, rule, ", ".join(sorted({key.split(".")[0] for key in state})) or None)
    return parts
