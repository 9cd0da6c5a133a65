"""Classifiers of other libraries, timm and torchvision, with their published weights or a checkpoint of yours."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from torch import nn

from diffaudit.errors import InvalidSetting, MissingExtra
from diffaudit.models.checkpoints import read_state
from diffaudit.models.classifier import Classifier
from diffaudit.models.fingerprints import module_fingerprint

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def timm_classifier(name: str, *, weights: Path | None = None, num_classes: int | None = None) -> Classifier:
    """The timm model ``name``, which brings its size and normalisation.

    Raises:
        MissingExtra: timm is not installed.
        InvalidSetting: there is no such model, its published weights cannot be had, or the checkpoint does not fit.
        UnsafeArchive: the checkpoint holds more than tensors.
    """
    timm = _library("timm", "timm")
    with _in_our_words("timm", name):
        model = timm.create_model(name, pretrained=weights is None, **_classes(num_classes))
    load_checkpoint(model, weights)
    config = timm.data.resolve_model_data_config(model)
    mean, std = tuple(config["mean"]), tuple(config["std"])
    return _classifier(model, size=config["input_size"][-1], mean=mean, std=std)


def torchvision_classifier(
    name: str, *, weights: Path | None = None, num_classes: int | None = None, size: int = 224
) -> Classifier:
    """The torchvision model ``name``, normalised as ImageNet is.

    Raises:
        MissingExtra: torchvision is not installed.
        InvalidSetting: there is no such model, its published weights cannot be had, or the checkpoint does not fit.
        UnsafeArchive: the checkpoint holds more than tensors.
    """
    published = "DEFAULT" if weights is None else None
    models = _library("torchvision.models", "torchvision")
    with _in_our_words("torchvision", name):
        model = models.get_model(name, weights=published, **_classes(num_classes))
    load_checkpoint(model, weights)
    return _classifier(model, size=size, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _library(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtra(extra, extra) from error


@contextmanager
def _in_our_words(library: str, name: str) -> Iterator[None]:
    """Says in our words that the library cannot make the model, or cannot fetch its weights."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        raise InvalidSetting(
            "name", f"be a model that {library} can make, with weights that can be had", name, f"It says: {error}"
        ) from error


def _classes(count: int | None) -> dict[str, int]:
    return {} if count is None else {"num_classes": count}


def _classifier(model: nn.Module, *, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Classifier:
    return Classifier(model.eval(), size=size, fingerprint=module_fingerprint(model), mean=mean, std=std)


def load_checkpoint(model: nn.Module, path: Path | None) -> None:
    """Weights from safetensors or a checkpoint of plain tensors; what would run code is refused."""
    if path is None:
        return
    state = read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidSetting("weights", "fit the model", str(path), f"It says: {error}") from error
