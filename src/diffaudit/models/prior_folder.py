"""A diffusion prior on disk, in diffusers' layout: a folder a component, and ``model_index.json``."""

import importlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers.utils import logging

from diffaudit.errors import InvalidSetting
from diffaudit.models.exported_autoencoder import ExportedAutoencoder

LIBRARIES = ("diffusers", "transformers", "diffaudit.models.autoencoder", "diffaudit.models.conditioning")
"""Where a pipeline's parts may come from: a file is read, never told what to import."""
EXPORTED = [ExportedAutoencoder.__module__, ExportedAutoencoder.__name__]
"""The entry of an autoencoder that a folder names but does not hold."""
COMPONENTS = ("vae", "unet", "scheduler", "tokenizer", "text_encoder", "identity_projector")


def read_components(location: str | Path, *, autoencoder: ExportedAutoencoder | None = None) -> dict[str, Any]:
    """The components in a folder, or of a hub id, by the names of :data:`COMPONENTS`; safetensors only.

    An ``autoencoder`` takes the place of the folder's ``vae``, which needs not be there; of its ``config.json``, if
    there is one, shift and scale are read.

    Raises:
        InvalidSetting: the folder holds no ``model_index.json`` or lacks an autoencoder, UNet or scheduler; a component
            is of another library; the autoencoder's latents are not those that the UNet was trained on.
    """
    folder = _folder(location)
    index = json.loads((folder / "model_index.json").read_text())
    present = [name for name in COMPONENTS if (index.get(name) or [None])[0]]
    if autoencoder is not None:
        autoencoder.read_config(folder / "vae")
        present = [name for name in present if name != "vae"]
    elif index.get("vae") == EXPORTED:
        rule = "be given as two .pt2 files, for the prior's folder holds none"
        raise InvalidSetting("prior.autoencoder", rule, None, "`autoencoder: {encoder: FILE, decoder: FILE}`.")
    with _without_progress_bars():
        parts: dict[str, Any] = {name: _component(folder, name, index[name]) for name in present}
    if autoencoder is not None:
        parts["vae"] = autoencoder
    wanted = ("vae", "unet", "scheduler", *(("tokenizer",) if "text_encoder" in parts else ()))
    for name in wanted:
        if name not in parts:
            raise InvalidSetting("prior", f"name a pipeline with a `{name}`", str(location))
    return parts


def write_components(parts: Mapping[str, Any], folder: Path) -> None:
    """Writes the components and the index that names the class of each."""
    with _without_progress_bars():
        for name, part in parts.items():
            part.save_pretrained(folder / name)
    index = {name: [type(part).__module__.split(".")[0], type(part).__name__] for name, part in parts.items()}
    for name, part in parts.items():
        if index[name][0] == "diffaudit":
            index[name][0] = type(part).__module__
    text = json.dumps({"_class_name": "DiffusionPipeline", **index}, indent=2)
    (folder / "model_index.json").write_text(text + "\n")


def is_hub_id(location: str) -> bool:
    """Whether this is no folder and may be a model of the hub: somebody's name and the model's.

    >>> is_hub_id("somebody/a-prior"), is_hub_id("a-prior"), is_hub_id("./models/a-prior")
    (True, False, False)
    """
    named = location.count("/") == 1 and not location.startswith((".", "/", "~"))
    return named and not os.access(location, os.F_OK)


def require_pipeline(folder: Path, *, key: str = "prior") -> None:
    """Refuses a folder, which a message calls ``key``, that holds no pipeline of diffusers' layout.

    Raises:
        InvalidSetting: the folder lacks ``model_index.json``.
    """
    if not os.access(folder / "model_index.json", os.R_OK):
        rule = "be a folder with a model_index.json, or a hub id"
        raise InvalidSetting(key, rule, str(folder), "Save a diffusers pipeline there.")


def _folder(location: str | Path) -> Path:
    folder = _from_the_hub(str(location)) if is_hub_id(str(location)) else Path(location)
    require_pipeline(folder)
    return folder


def _from_the_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        rule = "be a folder that is there, or the id of a model that the hub gives"
        raise InvalidSetting("prior", rule, name, f"The hub: {type(error).__name__}.") from error


@contextmanager
def _without_progress_bars() -> Iterator[None]:
    """Silence while transformers loads and saves: whoever calls shows progress their own way."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _component(folder: Path, name: str, entry: Sequence[str]) -> Any:
    library, kind = entry
    if library not in LIBRARIES:
        raise InvalidSetting(f"prior.{name}", f"come from one of {', '.join(LIBRARIES)}", library)
    loader = getattr(importlib.import_module(library), kind)
    options = {"use_safetensors": True} if issubclass(loader, nn.Module) else {}
    return loader.from_pretrained(folder / name, **options)
