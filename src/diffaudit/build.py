"""Settings to objects: the only file that knows every kind by name.

The attacker and the judge are built by different functions from different sections, and neither function sees the
other's section.
"""

import importlib
import pickle
from pathlib import Path
from typing import assert_never

import torch
from torch import Tensor, nn

from diffaudit import settings as s
from diffaudit.data.faces import photographs, sample_identities
from diffaudit.data.folders import ImageFolder, open_folder
from diffaudit.data.rendering import render_faces
from diffaudit.data.splits import halves
from diffaudit.errors import InvalidSetting, MissingExtra, ThreatModelViolation, UnsafeArchive
from diffaudit.inversion.attacker import Attacker, look_at
from diffaudit.inversion.embedding import LabelEmbedding, ManifoldEmbedding, MlpEmbedding, TableEmbedding
from diffaudit.inversion.generator import lora_parameters
from diffaudit.inversion.training import ImagePlan, StagePlan
from diffaudit.judging.judge import Instruments, Judge, PrivatePictures
from diffaudit.models.attributes import AttributeEstimator
from diffaudit.models.bundled import bundled_folder, fingerprint, load_network
from diffaudit.models.classifier import Classifier
from diffaudit.models.exported import exported_classifier, exported_encoder
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.nearest_mean import nearest_mean_classifier
from diffaudit.models.networks import Network
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior
from diffaudit.objective import Entry, Objective
from diffaudit.terms import FeatureCentre, IdentityCosine, Perceptual, PriorNoise, Regulariser, TopK
from diffaudit.training.populations import private_identities, public_identities
from diffaudit.weighting import Fixed, Staged, StageWeights, Weighting


def build_classifier(setting: s.ClassifierModel, *, given: nn.Module | None = None) -> Classifier:
    """The classifier of a settings section; ``given`` is the Python object that kind `given` stands for."""
    match setting:
        case s.BundledModel() | s.TrainedModel():
            folder = _folder(setting)
            network, card = load_network(folder)
            return Classifier(network, size=card["size"], fingerprint=fingerprint(folder / "model.safetensors"))
        case s.ExportedModel():
            return exported_classifier(setting.path, size=setting.size, allow_code=setting.allow_code)
        case s.TimmModel():
            return _timm(setting)
        case s.TorchvisionModel():
            return _torchvision(setting)
        case s.GivenModel():
            if given is None:
                raise InvalidSetting("target", "be handed over as a Python object where its kind is `given`", None)
            return Classifier(given.eval(), size=setting.size, fingerprint=module_fingerprint(given))
        case _:
            assert_never(setting)


def build_judge_classifier(setting: s.JudgeModel) -> Classifier:
    """A judge's classifier: a classifier, or a recogniser with photographs to compare with."""
    match setting:
        case s.NearestMean():
            known = private_pictures(setting.pictures)
            return nearest_mean_classifier(build_encoder(setting.encoder), known.images, known.labels)
        case s.GivenModel():
            raise InvalidSetting("judging.classifiers", "be models on disk: only the target is handed over", "given")
        case _:
            return build_classifier(setting)


def build_attacker(settings: s.InversionSettings, *, given: nn.Module | None = None) -> Attacker:
    """Everything that the threat model allows, from ``settings.attack`` alone."""
    attack = settings.attack
    classifier = build_classifier(attack.target, given=given)
    encoder = build_encoder(attack.encoder)
    public = look_at(public_images(attack.public), classifier, encoder)
    classes = chosen_classes(settings.classes, public.log_probabilities.shape[1], settings.seed)
    return Attacker(
        classes=classes,
        classifier=classifier,
        prior=build_prior(attack.prior),
        encoder=encoder,
        attributes=build_attributes(attack.attributes),
        perceptual=build_perceptual(attack.perceptual),
        public=public,
        prompt=attack.prior.prompt,
    )


def build_judge(settings: s.Judging, attacker: Attacker) -> Judge:
    """The judges and private pictures; of the attacker only public measuring devices are used.

    Raises:
        ThreatModelViolation: a classifier is not independent of the target, or the encoder is the attacker's.
    """
    encoder = build_encoder(settings.encoder)
    if encoder.fingerprint == attacker.encoder.fingerprint:
        raise ThreatModelViolation(
            f"`judging.encoder` has the weights of the attacker's (SHA-256 {encoder.fingerprint[:12]}): it would agree "
            "with whatever fooled them. Judge with another encoder."
        )
    factors = None if settings.factors is None else _network_and_size(settings.factors)[0]
    return Judge(
        {name: build_judge_classifier(model) for name, model in settings.classifiers.items()},
        encoder,
        private_pictures(settings.private).of(attacker.classes),
        instruments=Instruments(attacker.classifier, attacker.perceptual, attacker.attributes),
        factors=factors,
    )


def build_prior(setting: s.PriorModel) -> DiffusionPrior:
    """The diffusion prior: bundled by name, or a diffusers folder or hub id."""
    location = bundled_folder(setting.location) if setting.kind == "bundled" else setting.location
    return DiffusionPrior.load(location)


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
    network, size = _network_and_size(setting)
    return PerceptualFeatures(network, size=size)


def build_attributes(setting: s.AttributeModel) -> AttributeEstimator | None:
    """Attribute estimators, or None where pictures have no trained ones."""
    match setting:
        case s.BundledModel() | s.TrainedModel():
            network, card = load_network(_folder(setting))
            return AttributeEstimator(network, size=card["size"], spread=torch.tensor(card["spread"]))
        case s.LowPassLight():
            return None
        case _:
            assert_never(setting)


def build_embedding(setting: s.LabelEmbedding, anchors: Tensor, public: Tensor, *, seed: int) -> LabelEmbedding:
    """A label embedding that starts at ``anchors (n, D)``; ``public (N, D)`` spans the manifold."""
    match setting.kind:
        case "table":
            return TableEmbedding(anchors)
        case "mlp":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                return MlpEmbedding(anchors, hidden=setting.hidden, layers=setting.layers)
        case "manifold":
            return ManifoldEmbedding(anchors, public, explained_variance=setting.explained_variance)
        case _:
            assert_never(setting.kind)


def build_objective(settings: s.InversionSettings, attacker: Attacker, embedding: LabelEmbedding) -> Objective:
    """The baseline's terms under the weighting asked for."""
    terms = settings.terms
    if terms.identity_anchor == "oracle":  # no attacker holds a private embedding
        raise InvalidSetting(
            "terms.identity_anchor", "be `learned` or `pseudo`", "oracle", "The ceiling is the reference row `oracle`."
        )
    entries = [
        Entry(name="prior", group="prior", term=PriorNoise()),
        Entry(name="cls_topk", group="cls", term=TopK(k=terms.k)),
        Entry(name="id", group="id", term=IdentityCosine()),
        Entry(name="perc", group="perc", term=Perceptual(attacker.perceptual)),
        Entry(
            name="reg",
            group="reg",
            term=Regulariser(embedding.raw, lora_parameters(attacker.prior), lora_weight=terms.lora_weight),
        ),
    ]
    centres = attacker.pseudo_centres(settings.embedding.anchor_images)
    if centres is not None and terms.feature_factor > 0:
        every_class = torch.zeros(attacker.public.log_probabilities.shape[1], centres.shape[1])
        every_class[attacker.classes] = centres
        feature = Entry(name="cls_feature", group="cls", term=FeatureCentre(every_class), factor=terms.feature_factor)
        entries.insert(2, feature)
    used = used_groups(settings)
    return Objective([entry for entry in entries if entry.group in used], build_weighting(settings))


def used_groups(settings: s.InversionSettings) -> tuple[s.Group, ...]:
    """The groups that weigh something in some stage; the others are not even computed.

    Raises:
        InvalidSetting: nothing weighs anything in stages that train.
    """
    match settings.weighting:
        case s.FixedWeights(weights=weights):
            given = [weights]
        case s.StagedWeights():
            given = [stage.weights for stage in settings.stages]
        case _:
            assert_never(settings.weighting)
    used = tuple(group for group in s.GROUPS if any(weights.get(group, 0.0) > 0 for weights in given))
    if not used:
        raise InvalidSetting("weights", "be above 0 for at least one group of terms", given)
    return used


def build_weighting(settings: s.InversionSettings) -> Weighting:
    """The weighting of the used groups; one that a stage does not name weighs nothing there."""
    used = used_groups(settings)
    match settings.weighting:
        case s.FixedWeights(weights=weights):
            return Fixed({group: weights.get(group, 0.0) for group in used})
        case s.StagedWeights(handover=handover, shape=shape):
            starts = [sum(stage.steps for stage in settings.stages[:i]) for i in range(len(settings.stages))]
            stages = [
                StageWeights(start, {group: stage.weights.get(group, 0.0) for group in used})
                for start, stage in zip(starts, settings.stages, strict=True)
                if stage.steps > 0
            ]
            return Staged(stages or [StageWeights(0, dict.fromkeys(used, 0.0))], handover, shape)
        case _:
            assert_never(settings.weighting)


def build_stages(settings: s.InversionSettings) -> list[StagePlan]:
    """The stages in order, with the number of the run's step at which each begins."""
    plans, first = [], 0
    for stage in settings.stages:
        slowed = stage.embedding_factor if "lora" in stage.trains else 1.0
        plans.append(
            StagePlan(
                name=stage.name,
                trains=tuple(stage.trains),
                steps=stage.steps,
                rates={name: stage.rate * (slowed if name == "embedding" else 1.0) for name in stage.trains},
                batch=stage.batch,
                first_step=first,
                warmup=settings.optimiser.warmup,
                clip=settings.optimiser.clip,
                weight_decay=settings.optimiser.weight_decay,
            )
        )
        first += stage.steps
    return plans


def build_image_plan(setting: s.TrainingImage) -> ImagePlan:
    """How training images are made."""
    return ImagePlan(setting.mode, setting.steps, setting.gradient_steps, setting.strength, setting.guidance_scale)


def chosen_classes(setting: str | int | list[int], available: int, seed: int) -> Tensor:
    """The class indices of a run: all, so many drawn by the seed, or those listed; ascending.

    Raises:
        InvalidSetting: more classes than the target has, or an index that it does not have.
    """
    if setting == "all":
        return torch.arange(available)
    if isinstance(setting, int):
        if setting > available:
            raise InvalidSetting("classes", f"be at most the target's number of classes ({available})", setting)
        return torch.randperm(available, generator=torch.Generator().manual_seed(seed))[:setting].sort().values
    assert isinstance(setting, list)
    wrong = [index for index in setting if index >= available]
    if wrong or len(set(setting)) < len(setting):
        raise InvalidSetting("classes", f"be different indices below {available}", setting)
    return torch.tensor(sorted(setting))


def public_images(setting: s.Pictures) -> Tensor:
    """Public pictures ``(N, 3, H, W) uint8``."""
    match setting:
        case s.ProceduralFaces():
            known = public_identities()
            identities = known[: setting.identities]
            if setting.identities > len(known):
                raise InvalidSetting("public.identities", f"be at most {len(known)}", setting.identities)
            faces, _ = photographs(identities, setting.per_identity, seed=setting.seed + 77_000)
            return _bytes(render_faces(faces))
        case s.PictureFolders():
            return torch.cat([folder.read(size=setting.size, dtype=torch.uint8) for folder in opened(setting)])
        case _:
            assert_never(setting)


def private_pictures(setting: s.PrivatePictures) -> PrivatePictures:
    """Private pictures with their labels, for judging alone."""
    match setting:
        case s.PrivateFaces():
            identities = private_identities()
            faces, labels = photographs(identities, setting.per_identity, seed=setting.seed + 88_000)
            spread = sample_identities(2000, seed=404).std(0)
            return PrivatePictures(_bytes(render_faces(faces)), labels, identities, spread)
        case s.PictureFolders():
            folders = opened(setting)
            if len(folders) != 1:
                raise InvalidSetting("judging.private.folders", "be one folder", [str(f) for f in setting.folders])
            return PrivatePictures(folders[0].read(size=setting.size, dtype=torch.uint8), folders[0].labels)
        case _:
            assert_never(setting)


def opened(setting: s.PictureFolders) -> list[ImageFolder]:
    """The folders of a section with its inclusions, exclusions and halves applied."""
    folders = []
    for path in setting.folders:
        folder = open_folder(path)
        names = [
            n for n in folder.names if (setting.include is None or n in setting.include) and n not in setting.exclude
        ]
        folder = folder.only(names)
        if setting.half is not None:
            training, reference = halves(folder, seed=setting.seed)
            folder = training if setting.half == "training" else reference
        folders.append(folder)
    return folders


def module_fingerprint(module: nn.Module) -> str:
    """SHA-256 of a module's state, for objects that come from no file."""
    import hashlib

    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _network_and_size(setting: s.NetworkModel) -> tuple[Network, int | None]:
    if isinstance(setting, s.ExportedModel):
        raise InvalidSetting("kind", "be `bundled` or `trained` where feature maps are needed", setting.kind)
    network, card = load_network(_folder(setting))
    return network, card["size"]


def _folder(setting: s.BundledModel | s.TrainedModel) -> Path:
    return bundled_folder(setting.name) if isinstance(setting, s.BundledModel) else setting.folder


def _bytes(images: Tensor) -> Tensor:
    return (images * 255).round().byte()


def _timm(setting: s.TimmModel) -> Classifier:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise MissingExtra("timm", "timm") from error
    options = {} if setting.num_classes is None else {"num_classes": setting.num_classes}
    model = timm.create_model(setting.name, pretrained=setting.weights is None, **options)
    _load_checkpoint(model, setting.weights)
    config = timm.data.resolve_model_data_config(model)
    return Classifier(
        model.eval(),
        size=config["input_size"][-1],
        fingerprint=module_fingerprint(model),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
    )


def _torchvision(setting: s.TorchvisionModel) -> Classifier:
    try:
        models = importlib.import_module("torchvision.models")
    except ImportError as error:
        raise MissingExtra("torchvision", "torchvision") from error
    options = {} if setting.num_classes is None else {"num_classes": setting.num_classes}
    model = models.get_model(setting.name, weights="DEFAULT" if setting.weights is None else None, **options)
    _load_checkpoint(model, setting.weights)
    return Classifier(
        model.eval(),
        size=setting.size,
        fingerprint=module_fingerprint(model),
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    )


def _load_checkpoint(model: nn.Module, path: Path | None) -> None:
    """Weights from safetensors or a checkpoint of plain tensors; what would run code is refused."""
    if path is None:
        return
    if not path.is_file():
        raise InvalidSetting("weights", "be a file", str(path))
    state = _state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InvalidSetting("weights", "fit the model", str(path), f"It says: {error}") from error


def _state(path: Path) -> dict[str, Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnsafeArchive(f"{path} holds more than tensors. Save `model.state_dict()` alone.") from error
    if not isinstance(state, dict):
        raise InvalidSetting("weights", "hold a state dict", type(state).__name__)
    found: dict[str, Tensor] = state.get("state_dict", state)
    return found


def check_separation(settings: s.InversionSettings) -> None:
    """Refuses settings in which a file of the judges is also one of the attack's, or a person is public and private.

    No picture is opened for it: people are compared by the names of their folders.

    Raises:
        ThreatModelViolation: a bundled name, folder or file, or the name of a person stands on both sides.
    """
    attack = settings.attack
    seen = {_key(model) for model in (attack.target, attack.encoder, attack.attributes, attack.perceptual)}
    judges = dict(settings.judging.classifiers) | {"encoder": settings.judging.encoder}
    if settings.judging.factors is not None:
        judges["factors"] = settings.judging.factors
    for name, model in judges.items():
        if _key(model) in seen:
            raise ThreatModelViolation(
                f"`judging.{name}` is a model that the attack holds too ({_key(model)}). Judge with another model."
            )
    public, private = attack.public, settings.judging.private
    if isinstance(public, s.PictureFolders) and isinstance(private, s.PictureFolders):
        shared = sorted(_people(public) & _people(private))
        if shared:
            raise ThreatModelViolation(
                f"`attack.public` should show nobody of `judging.private`. Found {', '.join(shared[:5])}. "
                "Exclude them, or rename who only happens to share a name."
            )


def _people(setting: s.PictureFolders) -> set[str]:
    return {name.casefold() for folder in opened(setting) for name in folder.names}


def _key(model: object) -> str:
    match model:
        case s.BundledModel(name=name):
            return f"bundled {name}"
        case s.TrainedModel(folder=folder):
            return f"folder {folder.resolve()}"
        case s.ExportedModel(path=path):
            return f"file {path.resolve()}"
        case s.NearestMean(encoder=encoder):
            return _key(encoder)
        case _:
            return f"model {model!r}"
