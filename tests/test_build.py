"""From settings to objects: every kind is built, or refused in words that help."""

import importlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from diffaudit import build
from diffaudit import settings as s
from diffaudit.data.faces import photographs
from diffaudit.data.rendering import render_faces
from diffaudit.errors import InvalidSetting, MissingExtra, ThreatModelViolation, UnsafeArchive
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.embedding import ManifoldEmbedding, MlpEmbedding, TableEmbedding
from diffaudit.judging.judge import Judge
from diffaudit.models.attributes import harmonic_light
from diffaudit.models.bundled import fingerprint
from diffaudit.models.classifier import Classifier
from diffaudit.models.fingerprints import module_fingerprint
from diffaudit.models.nearest_mean import NearestMean
from diffaudit.models.networks import build_network
from diffaudit.objective import Objective
from diffaudit.settings import InversionSettings, check_settings
from diffaudit.settings.base import Section
from diffaudit.training.populations import private_identities, public_identities
from diffaudit.weighting import Fixed, Staged


class Small(nn.Module):
    """Channel means through a linear head."""

    def __init__(self, outputs: int = 4) -> None:
        super().__init__()
        self.head = nn.Linear(3, outputs)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(images.mean((2, 3)))
        return logits


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    """``pretend(name, module)``: importing ``name`` gives ``module``, or fails where it is None."""
    true_import = importlib.import_module

    def pretended(name: str, module: Any) -> None:
        def import_module(wanted: str, package: str | None = None) -> ModuleType:
            if wanted != name:
                return true_import(wanted, package)
            if module is None:
                raise ModuleNotFoundError(f"No module named {name!r}")
            found: ModuleType = module
            return found

        monkeypatch.setattr(importlib, "import_module", import_module)

    return pretended


def export(network: nn.Module, path: Path) -> Path:
    program = torch.export.export(
        network.eval(), (torch.rand(3, 3, 8, 8),), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},)
    )
    program.example_inputs = None
    torch.export.save(program, path)
    return path


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return export(Small(), tmp_path / "small.pt2")


# Classifiers ----------------------------------------------------------------------------------------------------------


def test_a_trained_folder_is_a_classifier(tiny_world: Path) -> None:
    classifier = build.build_classifier(s.TrainedModel(folder=tiny_world / "target"))
    assert classifier.size == 64
    assert classifier.fingerprint == fingerprint(tiny_world / "target" / "model.safetensors")
    assert classifier.logits(torch.rand(2, 3, 64, 64)).shape == (2, 100)
    assert not classifier.model.training
    assert not any(parameter.requires_grad for parameter in classifier.parameters())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"hold a card\.json"):
        build.build_classifier(s.TrainedModel(folder=tmp_path))


def test_an_unknown_bundled_name_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="be a bundled model"):
        build.build_classifier(s.BundledModel(name="nobody"))


def test_a_program_is_a_classifier(exported: Path) -> None:
    classifier = build.build_classifier(s.ExportedModel(path=exported, size=8))
    assert classifier.logits(torch.rand(2, 3, 20, 20)).shape == (2, 4)
    assert classifier.fingerprint == fingerprint(exported)


def traces(model: nn.Module) -> list[Any]:
    """Of each part: its mode, its hooks, and which of its parameters are trained, with their values and gradients."""
    return [
        (
            part.training,
            [len(hooks) for name, hooks in vars(part).items() if name.endswith("_hooks") and hooks is not None],
            [(p.requires_grad, p.tolist(), p.grad) for p in part.parameters(recurse=False)],
        )
        for part in model.modules()
    ]


def test_an_object_of_yours_is_a_classifier_in_eval_mode_and_stays_as_it_was() -> None:
    """Also the second time: a hook left behind by the first would show."""
    given = nn.Sequential(nn.Dropout(), Small()).train()
    given[1].head.bias.requires_grad_(False)  # type: ignore[union-attr]
    before = traces(given)
    for _ in range(2):
        classifier = build.build_classifier(s.GivenModel(size=8), given=given)
        images = torch.rand(2, 3, 8, 8, requires_grad=True)
        classifier(images).features.sum().backward()
        classifier.logits(images).sum().backward()
        assert not classifier.model.training
        assert not any(parameter.requires_grad for parameter in classifier.parameters())
        assert classifier.fingerprint == module_fingerprint(given)
        assert traces(given) == before


def test_an_object_that_cannot_be_copied_is_refused() -> None:
    given = Small()
    given.shifted = given.head.weight + 1
    with pytest.raises(InvalidSetting, match=r"`target` should be a module that `copy.deepcopy` can copy"):
        build.build_classifier(s.GivenModel(), given=given)


def test_an_object_whose_weights_cannot_be_seen_is_refused() -> None:
    """Two such objects of other weights would be taken for one and the same model."""
    given = nn.Module()
    given.held = [Small()]  # type: ignore[assignment]
    with pytest.raises(InvalidSetting, match=r"`target` should have its weights as parameters or buffers\. Found 'Mod"):
        build.build_classifier(s.GivenModel(), given=given)


def test_an_object_that_nobody_handed_over_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="`target` should be handed over as a Python object"):
        build.build_classifier(s.GivenModel())


def test_a_fingerprint_tells_weights_and_names_apart() -> None:
    torch.manual_seed(0)
    one, other = Small(), Small()
    assert module_fingerprint(one) != module_fingerprint(other)
    other.load_state_dict(one.state_dict())
    assert module_fingerprint(one) == module_fingerprint(other)
    assert module_fingerprint(one) != module_fingerprint(nn.Sequential(one))


# timm and torchvision -------------------------------------------------------------------------------------------------

LIBRARIES: dict[str, s.TimmModel | s.TorchvisionModel] = {
    "timm": s.TimmModel(name="small"),
    "torchvision.models": s.TorchvisionModel(name="small"),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_missing_library_says_how_to_install_it(pretend: Callable[[str, Any], None], library: str) -> None:
    pretend(library, None)
    package = library.split(".")[0]
    with pytest.raises(MissingExtra, match=rf'pip install "diffaudit\[{package}\]"'):
        build.build_classifier(LIBRARIES[library])


def timm_of(calls: list[Any]) -> SimpleNamespace:
    def create_model(name: str, *, pretrained: bool, num_classes: int = 4) -> nn.Module:
        calls.append((name, pretrained, num_classes))
        return Small(num_classes).train()

    config = {"input_size": (3, 8, 8), "mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.5)}
    return SimpleNamespace(create_model=create_model, data=SimpleNamespace(resolve_model_data_config=lambda _: config))


def torchvision_of(calls: list[Any]) -> SimpleNamespace:
    def get_model(name: str, *, weights: str | None, num_classes: int = 4) -> nn.Module:
        calls.append((name, weights == "DEFAULT", num_classes))
        return Small(num_classes).train()

    return SimpleNamespace(get_model=get_model)


def test_a_timm_model_brings_its_size_and_normalisation(pretend: Callable[[str, Any], None]) -> None:
    calls: list[Any] = []
    pretend("timm", timm_of(calls))
    classifier = build.build_classifier(s.TimmModel(name="small"))
    assert calls == [("small", True, 4)]
    assert classifier.size == 8
    assert not classifier.model.training
    features = classifier(torch.full((1, 3, 8, 8), 0.5)).features
    torch.testing.assert_close(features, torch.tensor([[0.0, 0.5, 0.4]]))


def test_a_torchvision_model_is_normalised_as_imagenet_is(pretend: Callable[[str, Any], None]) -> None:
    calls: list[Any] = []
    pretend("torchvision.models", torchvision_of(calls))
    classifier = build.build_classifier(s.TorchvisionModel(name="small", size=16))
    assert calls == [("small", True, 4)]
    assert classifier.size == 16
    features = classifier(torch.full((1, 3, 4, 4), 0.5)).features
    expected = [(0.5 - 0.485) / 0.229, (0.5 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    torch.testing.assert_close(features, torch.tensor([expected]))


@pytest.mark.parametrize("kind", [s.TimmModel, s.TorchvisionModel])
def test_published_weights_have_their_own_classes(kind: type[s.TimmModel] | type[s.TorchvisionModel]) -> None:
    """Of another number the last layer would be drawn at random, and audited."""
    with pytest.raises(ValueError, match=r"`num_classes` should be left out where `weights` is null\. Found 20\."):
        kind(name="small", num_classes=20)


def setting_of(library: str, weights: Path) -> s.TimmModel | s.TorchvisionModel:
    kind = s.TimmModel if library == "timm" else s.TorchvisionModel
    return kind(name="small", weights=weights, num_classes=7)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".ckpt"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_a_checkpoint_replaces_the_published_weights(
    pretend: Callable[[str, Any], None], tmp_path: Path, library: str, suffix: str
) -> None:
    calls: list[Any] = []
    pretend(library, timm_of(calls) if library == "timm" else torchvision_of(calls))
    mine, path = Small(7), tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file(mine.state_dict(), path)
    else:
        torch.save(mine.state_dict() if suffix == ".pt" else {"state_dict": mine.state_dict(), "epoch": 3}, path)
    classifier = build.build_classifier(setting_of(library, path))
    assert calls == [("small", False, 7)]
    images = torch.rand(1, 3, 8, 8)
    torch.testing.assert_close(classifier.model(images), mine(images))


class Mischief:
    """What a pickle does when it is opened: it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_a_checkpoint_that_would_run_code_is_refused(pretend: Callable[[str, Any], None], tmp_path: Path) -> None:
    pretend("timm", timm_of([]))
    torch.save({"state_dict": Mischief(tmp_path / "mark")}, tmp_path / "bad.pt")
    with pytest.raises(UnsafeArchive, match=r"bad\.pt holds more than tensors"):
        build.build_classifier(setting_of("timm", tmp_path / "bad.pt"))
    assert not (tmp_path / "mark").exists()


def test_checkpoints_that_do_not_fit_are_refused(pretend: Callable[[str, Any], None], tmp_path: Path) -> None:
    pretend("timm", timm_of([]))
    torch.save(Small(5).state_dict(), tmp_path / "five.pt")
    torch.save(torch.ones(3), tmp_path / "tensor.pt")
    whole = (tmp_path / "five.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    torch.save(Small(7).state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    old = (tmp_path / "old.pt").read_bytes()
    for length in range(2, len(old), 3):
        (tmp_path / "cut.pt").write_bytes(old[:length])
        with pytest.raises((InvalidSetting, UnsafeArchive), match=r"be a whole checkpoint|or is cut off"):
            build.build_classifier(setting_of("timm", tmp_path / "cut.pt"))
    (tmp_path / "page.pt").write_text("<html>404 Not Found</html>")
    (tmp_path / "page.safetensors").write_text("<html>404 Not Found</html>")
    build.build_classifier(setting_of("timm", tmp_path / "old.pt"))
    for name, message in (
        ("five.pt", "fit the model.*size mismatch"),
        ("tensor.pt", "hold a state dict"),
        ("no.pt", "be a file"),
        ("half.pt", "be a whole checkpoint"),
        ("page.pt", "be a whole checkpoint"),
        ("page.safetensors", "be a whole checkpoint"),
    ):
        with pytest.raises(InvalidSetting, match=rf"(?s)`weights` should {message}"):
            build.build_classifier(setting_of("timm", tmp_path / name))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_that_its_library_does_not_know_is_refused(pretend: Callable[[str, Any], None], library: str) -> None:
    def refuse(name: str, **_: object) -> nn.Module:
        raise RuntimeError(f"Unknown model ({name})")

    pretend(library, SimpleNamespace(create_model=refuse, get_model=refuse))
    with pytest.raises(InvalidSetting, match=r"`name` should be a model that \w+ can make.*Unknown model \(small\)"):
        build.build_classifier(LIBRARIES[library])


# Other models ---------------------------------------------------------------------------------------------------------


def test_a_trained_folder_is_an_encoder(tiny_world: Path) -> None:
    encoder = build.build_encoder(s.TrainedModel(folder=tiny_world / "identity"))
    assert encoder.dimension == 16
    torch.testing.assert_close(encoder(torch.rand(2, 3, 64, 64)).norm(dim=1), torch.ones(2))


def test_a_program_is_an_encoder(exported: Path) -> None:
    encoder = build.build_encoder(s.ExportedModel(path=exported, size=8))
    assert encoder.dimension == 4
    torch.testing.assert_close(encoder(torch.rand(2, 3, 64, 64)).norm(dim=1), torch.ones(2))


def test_a_program_is_a_ruler_by_its_maps(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 2, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    perceptual = build.build_perceptual(s.ExportedModel(path=export(network, tmp_path / "ruler.pt2"), size=8))
    assert [layer.shape for layer in perceptual(torch.rand(2, 3, 64, 64))] == [(2, 4, 4, 4)]


def test_perceptual_features_are_the_maps_of_a_network(tiny_world: Path) -> None:
    perceptual = build.build_perceptual(s.TrainedModel(folder=tiny_world / "attributes"))
    assert [layer.shape[-1] for layer in perceptual(torch.rand(1, 3, 64, 64))] == [16, 8, 4]


def test_attributes_come_in_units_of_their_spread(tiny_world: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_world / "attributes", tmp_path / "a")
    card = (tmp_path / "a" / "card.json").read_text()
    (tmp_path / "a" / "card.json").write_text(card.replace("1.0", "2.0"))
    image = torch.rand(1, 3, 64, 64)
    nobody = torch.empty(0, 3, 64, 64, dtype=torch.uint8)
    plain = build.build_attributes(s.TrainedModel(folder=tiny_world / "attributes"), nobody)
    halved = build.build_attributes(s.TrainedModel(folder=tmp_path / "a"), nobody)
    torch.testing.assert_close(halved(image)["pose"] * 2, plain(image)["pose"])


def test_low_pass_light_is_measured_in_its_spread_over_public_pictures() -> None:
    """Pictures of one grey each: every place of the grid spreads as the greys do."""
    greys = torch.tensor([0, 100, 200], dtype=torch.uint8)
    public = greys[:, None, None, None].expand(3, 3, 8, 8)
    found = build.build_attributes(s.LowPassLight(), public)(public / 255)
    assert found.keys() == {"illumination"}
    expected = (greys / greys.double().std(correction=0)).float()[:, None].expand(3, 16)
    torch.testing.assert_close(found["illumination"], expected)


def test_harmonic_light_is_nine_numbers_in_their_spread_over_public_pictures() -> None:
    public = torch.randint(256, (6, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = build.build_attributes(s.HarmonicLight(), public)(public / 255)["illumination"]
    light = harmonic_light(public / 255)
    torch.testing.assert_close(found, light / light.std(0, correction=0))
    assert found.shape == (6, 9)


def test_a_prior_is_a_folder_of_diffusers_layout(tiny_world: Path) -> None:
    prior = build.build_prior(s.PriorModel(kind="diffusers", location=str(tiny_world / "prior")))
    assert prior.projector is not None
    assert prior.projector.dimension == 16
    with pytest.raises(InvalidSetting, match=r"model_index\.json"):
        build.build_prior(s.PriorModel(kind="diffusers", location=str(tiny_world / "target")))


def test_an_adapter_for_faces_is_read_and_refused_beside_a_projector(tiny_world: Path, tmp_path: Path) -> None:
    save_file({"image_proj.norm.weight": torch.ones(2)}, tmp_path / "face.safetensors")
    location, adapter = str(tiny_world / "prior"), s.FaceIdAdapter(path=tmp_path / "face.safetensors")
    with pytest.raises(InvalidSetting, match="be left out where the prior has an identity projector of its own"):
        build.build_prior(s.IdentityPrior(kind="diffusers", location=location, face_id=adapter))


@pytest.mark.parametrize(
    ("kind", "expected"), [("table", TableEmbedding), ("mlp", MlpEmbedding), ("manifold", ManifoldEmbedding)]
)
def test_label_embeddings_start_at_the_anchors(kind: Any, expected: type) -> None:
    generator = torch.Generator().manual_seed(0)
    anchors, public = (nn.functional.normalize(torch.randn(n, 4, generator=generator), dim=1) for n in (3, 50))
    state = torch.random.get_rng_state()
    embedding = build.build_embedding(s.LabelEmbedding(kind=kind, explained_variance=1.0), anchors, public, seed=0)
    assert type(embedding) is expected
    torch.testing.assert_close(embedding(torch.arange(3)), anchors)
    assert torch.equal(torch.random.get_rng_state(), state)


# Objective, weighting, stages -----------------------------------------------------------------------------------------


def test_attributes_are_those_that_the_attackers_estimator_reads(tiny_values: dict[str, Any]) -> None:
    """Of light alone, scheme C keeps the light; what is asked for by name must be there."""
    tiny_values["attack"]["attributes"] = {"kind": "low_pass"}
    for term, kept in (({}, {"illumination": 0.2}), ({"weights": {"illumination": 0.7}}, {"illumination": 0.7})):
        settings = check_settings(tiny_values | {"terms": {"perc": [{"kind": "attributes", **term}]}})
        attacker = build.build_attacker(settings)
        anchors = attacker.pseudo_anchors(3)
        embedding = build.build_embedding(settings.embedding, anchors, attacker.public.embeddings, seed=0)
        found: Any = build.build_objective(settings, attacker, embedding).terms
        assert found["attr"].weights == kept
    settings = check_settings(tiny_values | {"terms": {"perc": [{"kind": "attributes", "weights": {"pose": 0.3}}]}})
    with pytest.raises(InvalidSetting, match="should name what the attack's estimator reads: illumination"):
        build.build_objective(settings, attacker, embedding)


def test_the_objective_holds_the_baselines_terms(tiny_settings: InversionSettings) -> None:
    attacker = build.build_attacker(tiny_settings)
    assert len(attacker.classes) == 2
    anchors = attacker.pseudo_anchors(3)
    embedding = build.build_embedding(tiny_settings.embedding, anchors, attacker.public.embeddings, seed=0)
    objective = build.build_objective(tiny_settings, attacker, embedding)
    assert set(objective.terms) == {"prior", "cls_topk", "cls_feature", "id", "perc", "reg"}
    without = tiny_settings.model_copy(update={"terms": s.Terms(cls=[s.TopKTerm()])})
    assert "cls_feature" not in build.build_objective(without, attacker, embedding).terms
    centres = attacker.pseudo_centres(tiny_settings.embedding.anchor_images)
    found: Tensor = objective.terms["cls_feature"].centres  # type: ignore[assignment]
    torch.testing.assert_close(found[attacker.classes], centres)


def test_fixed_centres_are_the_rows_of_the_last_layer(tiny_values: dict[str, Any]) -> None:
    tiny_values["terms"] = {"cls": [{"kind": "feature", "centres": "fixed"}]}
    settings = check_settings(tiny_values)
    attacker = build.build_attacker(settings)
    embedding = build.build_embedding(
        settings.embedding, attacker.pseudo_anchors(3), attacker.public.embeddings, seed=0
    )
    found: Any = build.build_objective(settings, attacker, embedding).terms["cls_feature"]
    rows, means = attacker.classifier.class_rows, attacker.pseudo_centres(settings.embedding.anchor_images)
    assert rows is not None
    assert means is not None
    cosine = nn.functional.cosine_similarity(found.centres, rows)
    torch.testing.assert_close(cosine, torch.ones(len(rows)))
    torch.testing.assert_close(found.centres.norm(dim=1), means.norm(dim=1).mean().expand(len(rows)))


def objective_of(settings: InversionSettings, attacker: Attacker) -> Objective:
    anchors = attacker.pseudo_anchors(3)
    embedding = build.build_embedding(settings.embedding, anchors, attacker.public.embeddings, seed=0)
    return build.build_objective(settings, attacker, embedding)


def test_terms_that_ask_for_more_than_the_models_give_are_refused(tiny_values: dict[str, Any]) -> None:
    """Before any work, with the reason; the next smaller number, or the logits' own scale, is built."""

    attacker = build.build_attacker(check_settings(tiny_values))
    blind = Classifier(Small(100), size=64, fingerprint="f", no_features="it is a black box")
    hidden = replace(attacker, public=replace(attacker.public, features=None), classifier=blind)
    with torch.no_grad():
        largest = float(attacker.classifier.logits(attacker.public.at(torch.arange(12))).abs().max())

    def terms(group: str, **term: Any) -> InversionSettings:
        return check_settings(tiny_values | {"terms": {group: [term]}})

    objective_of(terms("cls", kind="top_k", k=99), attacker)
    with pytest.raises(InvalidSetting, match=r"`terms.cls.k` should be at most 99, .*Found 100"):
        objective_of(terms("cls", kind="top_k", k=100), attacker)
    with pytest.raises(InvalidSetting, match=r"`terms.cls` should hold no term `feature` .*Found 'it is a black box'"):
        objective_of(terms("cls", kind="feature"), hidden)
    objective_of(terms("cls", kind="angular_margin", logit_scale=1.001 * largest), attacker)
    with pytest.raises(InvalidSetting, match=r"`terms.cls.logit_scale` should be .* public pictures reach 2"):
        objective_of(terms("cls", kind="angular_margin", logit_scale=largest / 2), attacker)


def test_fixed_weights_are_those_above_zero() -> None:
    weighting = build.build_weighting(InversionSettings(weighting=s.FixedWeights(weights={"cls": 2.0, "id": 0.0})))
    assert isinstance(weighting, Fixed)
    assert weighting.weights(7) == {"cls": 2}


def test_a_run_in_which_nothing_weighs_anything_is_refused() -> None:
    stages = [stage("none", 0, weights={})]
    with pytest.raises(InvalidSetting, match="above 0 for at least one group"):
        build.build_weighting(InversionSettings(stages=stages))


def test_learned_weights_leave_out_what_has_no_terms_or_is_fixed_at_nothing() -> None:
    bounded = s.TopKTerm(bounded=True)
    weighting = s.UncertaintyWeights(fixed={"reg": 0.01, "prior": 0.0})
    settings = InversionSettings(weighting=weighting, terms=s.Terms(cls=[bounded], perc=[]))
    assert build.used_groups(settings) == ("cls", "id", "reg")
    assert build.build_weighting(settings).weights(0).keys() == {"cls", "id", "reg"}
    without = settings.model_copy(update={"terms": s.Terms(cls=[bounded], reg=[])})
    assert build.used_groups(without) == ("cls", "id", "perc")


def test_terms_without_any_weight_are_not_computed(tiny_settings: InversionSettings) -> None:
    attacker = build.build_attacker(tiny_settings)
    embedding = build.build_embedding(
        tiny_settings.embedding, attacker.pseudo_anchors(3), attacker.public.embeddings, seed=0
    )
    stages = [stage("a", 2, weights={"id": 1.0, "perc": 0.0}), stage("b", 2, weights={"reg": 1.0})]
    objective = build.build_objective(tiny_settings.model_copy(update={"stages": stages}), attacker, embedding)
    assert set(objective.terms) == {"id", "reg"}
    assert objective.weighting.weights(0) == {"id": 1.0, "reg": 0.0}


def stage(name: str, steps: int, **more: Any) -> s.Stage:
    return s.Stage.model_validate(
        {"name": name, "trains": ["embedding"], "steps": steps, "rate": 0.1, "weights": {"id": 1.0}} | more
    )


def test_stages_begin_where_the_last_one_ended() -> None:
    stages = [
        stage("a", 4, weights={"id": 1.0}),
        stage("none", 0, weights={"id": 9.0}),
        stage("b", 6, weights={"cls": 3.0}, trains=["lora", "embedding"], embedding_factor=0.2),
    ]
    settings = InversionSettings(stages=stages, weighting=s.StagedWeights())
    plans = build.build_stages(settings)
    assert [(plan.name, plan.first_step, plan.steps) for plan in plans] == [("a", 0, 4), ("none", 4, 0), ("b", 4, 6)]
    assert plans[0].rates == {"embedding": 0.1}
    assert plans[2].rates == pytest.approx({"lora": 0.1, "embedding": 0.02})
    weighting = build.build_weighting(settings)
    assert isinstance(weighting, Staged)
    assert [weighting.weights(step)["id"] for step in (0, 3, 4, 9)] == [1, 1, 0, 0]
    assert [weighting.weights(step)["cls"] for step in (0, 3, 4, 9)] == [0, 0, 3, 3]


def test_a_run_without_a_step_has_weights_of_zero() -> None:
    weighting = build.build_weighting(InversionSettings(stages=[stage("none", 0)]))
    assert set(weighting.weights(0).values()) == {0.0}


def test_the_image_plan_is_the_settings() -> None:
    setting = s.TrainingImage(mode="one_step", steps=3, gradient_steps=1, strength=0.5, guidance_scale=2.5)
    assert vars(build.build_image_plan(setting)) == setting.model_dump()


# Classes --------------------------------------------------------------------------------------------------------------


def test_classes_all_listed_or_drawn() -> None:
    assert build.chosen_classes("all", 4, 0).tolist() == [0, 1, 2, 3]
    assert build.chosen_classes([3, 0], 4, 0).tolist() == [0, 3]
    drawn = build.chosen_classes(20, 100, 0)
    assert drawn.tolist() == sorted(set(drawn.tolist()))
    assert len(drawn) == 20
    assert torch.equal(drawn, build.chosen_classes(20, 100, 0))
    assert not torch.equal(drawn, build.chosen_classes(20, 100, 1))
    assert build.chosen_classes(4, 4, 5).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("classes", "message"),
    [(5, r"at most .* \(4\)"), ([0, 4], "different indices below 4"), ([1, 1], "different indices")],
)
def test_classes_that_are_not_there_are_refused(classes: Any, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        build.chosen_classes(classes, 4, 0)


# Pictures -------------------------------------------------------------------------------------------------------------


def numbers(images: Tensor) -> list[int]:
    found: list[int] = images[:, 0, 0, 0].tolist()
    return found


def test_a_name_that_nobody_bears_is_refused(album: Path) -> None:
    """Passed over, a slip of the pen in `exclude` would put everybody after it into another class."""
    for slip in ({"exclude": ["P1"]}, {"include": ["p0", "p9"]}):
        section = s.PictureFolders.model_validate({"folders": [album, album], "size": 8} | slip)
        with pytest.raises(InvalidSetting, match=r"`include and exclude` should name people of .*album. Found 'P1|p9'"):
            build.opened(section)


def test_private_people_are_the_targets_classes_and_have_two_pictures_each(
    tiny_values: dict[str, Any], album: Path
) -> None:
    tiny_values["judging"]["private"] = {"kind": "folders", "folders": [str(album)]}
    settings = check_settings(tiny_values)
    build.check_people(settings, 3)
    for classes in (2, 4):
        with pytest.raises(InvalidSetting, match=rf"every class of the target and nobody else, {classes}\. Found 3"):
            build.check_people(settings, classes)
    for number in range(3):
        (album / "p1" / f"{number}.png").unlink()
    with pytest.raises(InvalidSetting, match=r"every person in two pictures or more\. Found '1 with fewer: p1'"):
        build.check_people(settings, 3)
    build.check_people(check_settings(tiny_values | {"reference_rows": False}), 3)


def test_public_folders_are_read_one_after_another_without_the_excluded(album: Path) -> None:
    every = build.public_images(s.PictureFolders(folders=[album, album], size=8, exclude=["p1"]))
    assert numbers(every) == [0, 1, 2, 3, 20, 21, 22, 23] * 2
    assert every.dtype == torch.uint8
    only = build.public_images(s.PictureFolders(folders=[album], size=4, include=["p2", "p1"], exclude=["p1"]))
    assert (numbers(only), only.shape[-1]) == ([20, 21, 22, 23], 4)


def test_halves_share_no_picture_and_leave_none_out(album: Path) -> None:
    setting = s.PictureFolders(folders=[album], size=8, half="training")
    training = build.private_pictures(setting)
    reference = build.private_pictures(setting.model_copy(update={"half": "reference"}))
    assert sorted(numbers(training.images) + numbers(reference.images)) == [*range(4), *range(10, 14), *range(20, 24)]
    assert training.labels.tolist() == reference.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert training.factors is None


def test_private_pictures_are_one_folder(album: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"judging\.private\.folders` should be one folder"):
        build.private_pictures(s.PictureFolders(folders=[album, album]))


def test_procedural_pictures_are_those_of_their_populations() -> None:
    faces, _ = photographs(public_identities()[:3], 2, seed=77_004)
    found = build.public_images(s.ProceduralFaces(identities=3, per_identity=2, seed=4))
    assert torch.equal(found, (render_faces(faces) * 255).round().byte())
    with pytest.raises(InvalidSetting, match=r"public\.identities` should be at most 4000. Found 4001"):
        build.public_images(s.ProceduralFaces(identities=4001))


def test_private_faces_know_their_factors(monkeypatch: pytest.MonkeyPatch) -> None:
    people = private_identities()[:3]
    monkeypatch.setattr(build.pictures, "private_identities", lambda: people)
    found = build.private_pictures(s.PrivateFaces(per_identity=2))
    assert found.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.factors is people
    assert found.factor_spread is not None
    # Factors are uniform in [0, 1] but for beard and glasses, which most lack: spreads are about 1 / sqrt(12).
    assert found.factor_spread.median().item() == pytest.approx(12**-0.5, abs=0.02)


# Judges and separation ------------------------------------------------------------------------------------------------


def test_a_recogniser_with_photographs_is_a_judge(tiny_world: Path, album: Path) -> None:
    setting = s.NearestMean(
        encoder=s.TrainedModel(folder=tiny_world / "judge-identity"),
        pictures=s.PictureFolders(folders=[album], size=64),
    )
    judge = build.build_judge_classifier(setting)
    assert isinstance(judge.model, NearestMean)
    assert judge.logits(torch.rand(2, 3, 64, 64)).shape == (2, 3)


def test_the_judges_are_built_for_the_classes_sought(tiny_settings: InversionSettings) -> None:
    attacker = build.build_attacker(tiny_settings)
    judge = build.build_judge(tiny_settings.judging, attacker)
    assert isinstance(judge, Judge)
    assert judge.private.labels.tolist() == [int(label) for label in attacker.classes for _ in range(2)]
    assert list(judge.classifiers) == ["one", "two"]


def test_a_copy_of_the_attackers_encoder_is_no_judge(
    tiny_values: dict[str, Any], tiny_world: Path, tmp_path: Path
) -> None:
    """In another folder, so that its name does not give it away."""
    shutil.copytree(tiny_world / "identity", tmp_path / "copy")
    tiny_values["judging"]["encoder"] = {"kind": "trained", "folder": str(tmp_path / "copy")}
    settings = check_settings(tiny_values)
    build.check_door(settings)
    with pytest.raises(ThreatModelViolation, match=r"`judging\.encoder` has the weights of the attacker's"):
        build.build_judge(settings.judging, build.build_attacker(settings))


def test_networks_of_the_card_are_the_networks_built(tiny_world: Path) -> None:
    network, _ = build.models.network_and_size(s.TrainedModel(folder=tiny_world / "judge-two"))
    assert type(network) is type(build_network("depthwise", 3))


def test_every_kind_of_term_has_a_name_in_the_logs() -> None:
    sections = list(vars(importlib.import_module("diffaudit.settings.terms")).values())
    kinds = {
        str(section.model_fields["kind"].default)
        for section in sections
        if isinstance(section, type) and issubclass(section, Section) and "kind" in section.model_fields
    }
    assert kinds == set(importlib.import_module("diffaudit.build.terms").NAMES)
