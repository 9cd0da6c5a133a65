"""The threat model in code: what attacks reaches neither a judge nor a private picture, and opens no file of theirs."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit import build
from diffaudit.events import Event
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.state import TrainingState
from diffaudit.judging.judge import Judge, PrivatePictures
from diffaudit.judging.perturbed import PerturbationJudge
from diffaudit.perturbation.plans import Plans
from diffaudit.perturbation.scene import Perturber
from diffaudit.settings import InversionSettings, PerturbationSettings
from diffaudit.study.runner import run_inversion
from diffaudit.training.populations import private_identities

BOUNDARY = (type, ModuleType, FunctionType, BuiltinFunctionType)
"""Where the walk stops: classes, modules and functions are code, shared by everything."""


def reachable(root: object) -> list[object]:
    """Every object that can be reached from ``root``, code aside."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        item = waiting.pop()
        if isinstance(item, FunctionType):  # its code is shared, what it closes over is not
            waiting += [cell.cell_contents for cell in item.__closure__ or ()]
        if id(item) in seen or isinstance(item, BOUNDARY):
            continue
        seen[id(item)] = item
        waiting += gc.get_referents(item)
        if isinstance(item, nn.Module):  # a module's hooks are bound methods: follow what they are bound to
            waiting += [getattr(hook, "__self__", None) for hook in item._forward_pre_hooks.values()]
    return list(seen.values())


def forbidden(root: object, judge: Judge | PerturbationJudge) -> list[str]:
    """What of the judge's can be reached from ``root``: its objects, its weights, its pictures."""
    secrets = {tensor.data_ptr(): name for name, tensor in secrets_of(judge)}
    found = []
    for item in reachable(root):
        if isinstance(item, Judge | PerturbationJudge | PrivatePictures):
            found.append(type(item).__name__)
        if isinstance(item, Tensor) and item.layout == torch.strided and item.data_ptr() in secrets:
            found.append(secrets[item.data_ptr()])
    return found


def secrets_of(judge: Judge | PerturbationJudge) -> Iterator[tuple[str, Tensor]]:
    """The tensors that an attack must not reach, named."""
    modules: dict[str, nn.Module]
    if isinstance(judge, Judge):
        yield "private pictures", judge.private.images
        modules = {**judge.classifiers, "encoder": judge.encoder}
    else:
        assert judge.encoder is not None
        unseen = {name: model for name, model in judge.models.items() if judge.roles[name] != "surrogate"}
        modules = {**unseen, "encoder": judge.encoder, "perceptual features": judge.perceptual}
    for name, module in modules.items():
        yield from ((f"judge {name}", parameter) for parameter in module.parameters())


@pytest.fixture(scope="module")
def sides(tiny_settings: InversionSettings) -> tuple[TrainingState, Judge]:
    attacker = build.build_attacker(tiny_settings)
    anchors = attacker.pseudo_anchors(3)
    return build.build_state(tiny_settings, attacker, anchors), build.build_judge(tiny_settings.judging, attacker)


def test_nothing_of_the_judges_can_be_reached_from_the_attack(sides: tuple[TrainingState, Judge]) -> None:
    state, judge = sides
    assert forbidden(state, judge) == []


def test_the_walk_sees_the_attackers_own_models(sides: tuple[TrainingState, Judge]) -> None:
    state, _ = sides
    found = {id(item) for item in reachable(state)}
    assert id(next(iter(state.attacker.classifier.parameters()))) in found
    assert id(state.attacker.public.images) in found


@pytest.mark.parametrize("leak", ["judge", "weights", "pictures"])
def test_a_leak_made_on_purpose_is_found(sides: tuple[TrainingState, Judge], leak: str) -> None:
    state, judge = sides
    secret: Any = {
        "judge": judge,
        "weights": next(iter(judge.classifiers.values())),
        "pictures": judge.private.images,
    }[leak]
    leaky = replace(state.attacker, prompt=secret)
    assert forbidden(replace(state, attacker=leaky), judge) != []


@pytest.fixture(scope="module")
def perturbing() -> tuple[Perturber, Plans, build.LabelledImages, PerturbationJudge]:
    """Both sides of a perturbation, as its run has them when the attack begins: rehearsed, judges and all."""
    settings = PerturbationSettings.model_validate({"images": {"kind": "faces", "count": 2}})
    pictures = build.victims(settings.images)
    perturber = build.build_perturber(settings, pictures.classes)
    plans = build.build_plans(settings, perturber)
    judge = build.build_perturbation_judge(settings, perturber)
    build.rehearse(settings, perturber, plans, judge, pictures)
    return perturber, plans, pictures, judge


def test_a_perturbation_reaches_nothing_of_its_judges(
    perturbing: tuple[Perturber, Plans, build.LabelledImages, PerturbationJudge],
) -> None:
    *attack, judge = perturbing
    assert set(judge.roles.values()) >= {"surrogate", "heldout"}
    assert forbidden(attack, judge) == []
    assert id(next(iter(judge.models["residual"].parameters()))) in {id(item) for item in reachable(attack)}


@pytest.mark.parametrize("leak", ["judge", "depthwise", "ruler"])
def test_a_leak_to_a_perturbation_is_found(
    perturbing: tuple[Perturber, Plans, build.LabelledImages, PerturbationJudge], leak: str
) -> None:
    perturber, *_, judge = perturbing
    secret: Any = {"judge": judge, "depthwise": judge.models["depthwise"], "ruler": judge.perceptual}[leak]
    assert forbidden(replace(perturber, template=secret), judge) != []


_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened is not None and event == "open" and isinstance(arguments[0], str | bytes | Path):
        _opened.append(str(arguments[0]))


sys.addaudithook(_audit)


@contextmanager
def watching_files() -> Iterator[list[str]]:
    """Collects the paths of all files that Python opens."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def judges_files_opened_by_the_attack(
    settings: InversionSettings, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Files of the judges, and renderings of private people, that a run touches before it says that it judges."""
    touched: list[str] = []
    judging = False
    private = private_identities

    def render_private() -> Tensor:
        if not judging:
            touched.append("private identities")
        return private()

    monkeypatch.setattr(build.pictures, "private_identities", render_private)
    with watching_files() as opened:

        def note(event: Event) -> None:
            nonlocal judging
            if event.stage == "judge" and not judging:
                judging = True
                touched.extend(path for path in opened if "judge-" in path)

        run_inversion(settings, folder, command="test", on_event=note)
        assert any("judge-" in path for path in opened), "the judges' files should be opened later in the run"
        assert any(path.endswith("model.safetensors") and "target" in path for path in opened)
    return touched


def test_the_attack_opens_no_file_of_the_judges(
    tiny_settings: InversionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judges_files_opened_by_the_attack(tiny_settings, tmp_path / "run", monkeypatch) == []


def test_an_attack_that_peeks_is_found(
    tiny_settings: InversionSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = build.build_attacker

    def peeking(settings: InversionSettings, **options: Any) -> Attacker:
        attacker = honest(settings, **options)
        build.build_encoder(settings.judging.encoder)
        build.private_pictures(settings.judging.private)
        return attacker

    monkeypatch.setattr(build.audits, "build_attacker", peeking)
    touched = judges_files_opened_by_the_attack(tiny_settings, tmp_path / "run", monkeypatch)
    assert "private identities" in touched
    assert any("judge-identity" in path for path in touched)
