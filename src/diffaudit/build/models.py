"""Settings to models: classifiers, encoders, priors, estimators."""

import copy
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from diffaudit import settings as s
from diffaudit.errors import InvalidSetting
from diffaudit.models.attributes import AttributeEstimator, harmonic_light, light_estimator, low_pass_light
from diffaudit.models.bundled import bundled_folder, fingerprint, load_network
from diffaudit.models.classifier import Classifier
from diffaudit.models.efficientnet_lite import efficientnet_lite
from diffaudit.models.exported import exported_classifier, exported_encoder
from diffaudit.models.exported_autoencoder import ExportedAutoencoder, exported_autoencoder
from diffaudit.models.exported_maps import exported_perceptual
from diffaudit.models.external import timm_classifier, torchvision_classifier
from diffaudit.models.face_id import attach_face_id
from diffaudit.models.fingerprints import module_fingerprint
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.networks import Network
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior


def build_classifier(setting: s.ClassifierModel, *, given: nn.Module | None = None, name: str = "target") -> Classifier:
    """The classifier of a settings section; ``given`` is the Python object that kind `given` stands for.

    ``name`` is the key that a message names. A copy of ``given`` is frozen and hooked, so that the caller's own module
    stays as it was. It costs the memory of its parameters and buffers once more.

    Raises:
        InvalidSetting: ``given`` is missing, cannot be copied, or shows no weights; what its kind refuses.
    """
    match setting:
        case s.BundledModel() | s.TrainedModel():
            folder = _folder(setting)
            network, card = load_network(folder)
            return Classifier(network, size=card["size"], fingerprint=fingerprint(folder / "model.safetensors"))
        case s.ExportedModel():
            return exported_classifier(setting.path, size=setting.size, allow_code=setting.allow_code)
        case s.TimmModel():
            return timm_classifier(setting.name, weights=setting.weights, num_classes=setting.num_classes)
        case s.TorchvisionModel():
            return torchvision_classifier(
                setting.name, weights=setting.weights, num_classes=setting.num_classes, size=setting.size
            )
        case s.EfficientNetLite(variant=variant):
            return efficientnet_lite(variant)
        case s.GivenModel():
            if given is None:
                rule = "be handed over as a Python object where its kind is `given`"
                raise InvalidSetting(name, rule, None)
            if not given.state_dict():
                hint = "A network kept in a list or a closure is not seen: make it an attribute."
                raise InvalidSetting(name, "have its weights as parameters or buffers", type(given).__name__, hint)
            return Classifier(_copy(given, name).eval(), size=setting.size, fingerprint=module_fingerprint(given))
        case _:
            assert_never(setting)


def build_prior(setting: s.PriorModel) -> DiffusionPrior:
    """The diffusion prior: bundled by name, or a diffusers folder or hub id; an inversion's with its adapter."""
    location = bundled_folder(setting.location) if setting.kind == "bundled" else setting.location
    autoencoder = None if setting.autoencoder is None else build_autoencoder(setting.autoencoder)
    prior = DiffusionPrior.load(location, autoencoder=autoencoder)
    if isinstance(setting, s.IdentityPrior) and setting.face_id is not None:
        attach_face_id(prior, setting.face_id.path, scale=setting.face_id.scale)
    return prior


def build_autoencoder(setting: s.ExportedAutoencoderModel) -> ExportedAutoencoder:
    """The autoencoder of a prior whose folder holds none."""
    return exported_autoencoder(
        setting.encoder, setting.decoder, allow_code=setting.allow_code, shift=setting.shift, scale=setting.scale
    )


def build_encoder(setting: s.NetworkModel) -> IdentityEncoder:
    """An identity encoder."""
    match setting:
        case s.BundledModel() | s.TrainedModel():
            folder = _folder(setting)
            network, card = load_network(folder)
            mark = fingerprint(folder / "model.safetensors")
            return IdentityEncoder(network, size=card["size"], dimension=card["outputs"], fingerprint=mark)
        case s.ExportedModel():
            return exported_encoder(setting.path, size=setting.size, allow_code=setting.allow_code)
        case _:
            assert_never(setting)


def build_perceptual(setting: s.NetworkModel) -> PerceptualFeatures:
    """A perceptual feature network."""
    if isinstance(setting, s.ExportedModel):
        return exported_perceptual(setting.path, size=setting.size, allow_code=setting.allow_code)
    network, size = network_and_size(setting)
    return PerceptualFeatures(network, size=size)


def build_attributes(setting: s.AttributeModel, public: Tensor) -> AttributeEstimator:
    """Attribute estimators; light without a network is standardised by the byte images ``public (N, 3, H, W)``."""
    match setting:
        case s.BundledModel() | s.TrainedModel():
            network, card = load_network(_folder(setting))
            return AttributeEstimator(network, size=card["size"], spread=torch.tensor(card["spread"]))
        case s.LowPassLight():
            return light_estimator(low_pass_light, public)
        case s.HarmonicLight():
            return light_estimator(harmonic_light, public)
        case _:
            assert_never(setting)


def network_and_size(setting: s.OwnNetwork) -> tuple[Network, int | None]:
    """A network of ours, and the side in pixels that it wants."""
    network, card = load_network(_folder(setting))
    return network, card["size"]


def _copy(given: nn.Module, name: str) -> nn.Module:
    """The module once more, with the same weights, flags and hooks; ``name`` is the key that a message names."""
    try:
        return copy.deepcopy(given)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        rule = "be a module that `copy.deepcopy` can copy, for the audit works on a copy"
        remedy = f"It says: {error} Export it with `torch.export`, or hand over a module that was not called yet."
        raise InvalidSetting(name, rule, type(given).__name__, remedy) from error


def _folder(setting: s.BundledModel | s.TrainedModel) -> Path:
    return bundled_folder(setting.name) if isinstance(setting, s.BundledModel) else setting.folder
