"""Two programs of ``torch.export``, an encoder and a decoder, as the autoencoder of a diffusion prior."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, fx, nn

from diffaudit.errors import InvalidSetting
from diffaudit.models.exported import read_program

SIDES = (64, 128)
"""In pixels, of the dry runs: two, so that a program of one size alone is found out."""
CLAMPS = (
    torch.ops.aten.clamp.default,
    torch.ops.aten.clamp_min.default,
    torch.ops.aten.clamp_max.default,
    torch.ops.aten.clip.default,
    torch.ops.aten.hardtanh.default,
)
ENCODER = "autoencoder.encoder"
DECODER = "autoencoder.decoder"


class ExportedAutoencoder(nn.Module):
    """Images ``(B, 3, H, W)`` in [-1, 1] to latents ``(B, latent_channels, h, w)`` and back, without a posterior.

    The programs themselves speak of images in [0, 1], as every exported model here. Nothing is clamped, so gradients
    pass everywhere. Deaf to :meth:`train` and :meth:`eval`, which programs refuse.

    Args:
        encoder: the module of a loaded ``torch.export.ExportedProgram``, images to one tensor of latents.
        decoder: the same, latents to images.
        latent_channels: of the latents.
        fingerprints: SHA-256 of the files ``encoder`` and ``decoder``.
        shift: ``(z - shift) * scale`` has about unit variance; None: what the prior's folder says, else 0.
        scale: None: what the prior's folder says, else 1.
    """

    def __init__(
        self,
        encoder: fx.GraphModule,
        decoder: fx.GraphModule,
        *,
        latent_channels: int,
        fingerprints: dict[str, str],
        shift: float | None = None,
        scale: float | None = None,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.fingerprints = fingerprints
        self._asked = {"shift_factor": shift, "scaling_factor": scale}
        self.config = SimpleNamespace(latent_channels=latent_channels, **_standardisation(self._asked, {}))
        self.requires_grad_(False)

    def train(self, mode: bool = True) -> "ExportedAutoencoder":
        """Nothing: a program was exported in one mode and stays in it."""
        return self

    def encode(self, images: Tensor) -> Tensor:
        """``(B, 3, H, W)`` in [-1, 1] to raw latents ``(B, latent_channels, h, w)``."""
        latents: Tensor = self.encoder(images / 2 + 0.5)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Raw latents to images about [-1, 1], not clamped."""
        images: Tensor = self.decoder(latents)
        return images * 2 - 1

    def read_config(self, folder: Path) -> None:
        """Takes shift and scale, where none were given, from ``config.json`` of a prior's ``vae``, if there is one.

        Raises:
            InvalidSetting: the prior was trained on the latents of another encoder.
        """
        path = folder / "config.json"
        found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        mark = found.get("encoder_fingerprint", self.fingerprints["encoder"])
        if mark != self.fingerprints["encoder"]:
            raise InvalidSetting(
                ENCODER,
                f"be the file whose latents the prior was trained on (SHA-256 {mark[:12]})",
                self.fingerprints["encoder"][:12],
                f"If both hold the same network, delete `encoder_fingerprint` from {path}.",
            )
        vars(self.config).update(_standardisation(self._asked, found))

    def save_pretrained(self, folder: Path) -> None:
        """Writes ``config.json``: shift, scale and the files' fingerprints. The programs stay where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        marks = {f"{name}_fingerprint": mark for name, mark in self.fingerprints.items()}
        values = {"_class_name": type(self).__name__, **vars(self.config), **marks}
        (folder / "config.json").write_text(json.dumps(values, indent=2) + "\n")


def exported_autoencoder(
    encoder: Path, decoder: Path, *, allow_code: bool, shift: float | None = None, scale: float | None = None
) -> ExportedAutoencoder:
    """The autoencoder in two ``.pt2`` files, which take images and latents of any size and batch.

    Raises:
        InvalidSetting: no such file, not a program; not images ``(B, 3, H, W)`` to latents ``(B, c, h, w)`` and back;
            a decoder that ends by clamping, for no gradient passes where it does.
        UnsafeArchive: a file could run code and ``allow_code`` is false; see :mod:`diffaudit.models.archives`.
    """
    encode, encoder_mark = read_program(encoder, allow_code=allow_code, setting=ENCODER)
    decode, decoder_mark = read_program(decoder, allow_code=allow_code, setting=DECODER)
    _refuse_clamp(decode, decoder)
    channels = 0
    for side in SIDES:
        images = torch.zeros(2, 3, side, side)
        rule = f"take images (B, 3, {side}, {side}) and answer with one tensor of latents (B, c, h, w)"
        latents = _tried(encode, images, ENCODER, rule, encoder)
        channels = latents.shape[1]
        rule = f"take latents {('B', *latents.shape[1:])} and answer with images (B, 3, {side}, {side})"
        decoded = _tried(decode, latents, DECODER, rule, decoder)
        if decoded.shape != images.shape:
            raise InvalidSetting(DECODER, rule, str(decoder), f"It gives {tuple(decoded.shape)}.")
    marks = {"encoder": encoder_mark, "decoder": decoder_mark}
    return ExportedAutoencoder(encode, decode, latent_channels=channels, fingerprints=marks, shift=shift, scale=scale)


def _standardisation(asked: dict[str, float | None], found: dict[str, Any]) -> dict[str, float]:
    fallback = {"shift_factor": 0.0, "scaling_factor": 1.0}
    chosen = {}
    for name, value in asked.items():
        known = found.get(name)
        chosen[name] = value if value is not None else fallback[name] if known is None else float(known)
    return chosen


@torch.no_grad()
def _tried(program: Callable[[Tensor], Tensor], given: Tensor, setting: str, rule: str, path: Path) -> Tensor:
    try:
        answer = program(given)
    except (RuntimeError, ValueError, AssertionError, TypeError) as error:
        raise InvalidSetting(setting, rule, str(path), f"Export it with dynamic sizes. {error}") from error
    if not isinstance(answer, Tensor) or answer.ndim != 4 or len(answer) != len(given):
        raise InvalidSetting(setting, rule, str(path), f"It gives {getattr(answer, 'shape', type(answer))}.")
    return answer


def _refuse_clamp(program: fx.GraphModule, path: Path) -> None:
    for node in program.graph.output_node().all_input_nodes:
        if node.target in CLAMPS:
            rule = "not clamp its images, for no gradient passes where it does"
            raise InvalidSetting(DECODER, rule, str(path), "Export it without its last step.")
