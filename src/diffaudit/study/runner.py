"""One inversion run from settings to report: builds, trains, samples, judges; every finished part survives a kill."""

import json
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffaudit import build
from diffaudit.errors import RunConflict
from diffaudit.events import Event
from diffaudit.inversion.attacker import HAS, HAS_NOT, Attacker
from diffaudit.inversion.generator import add_lora, check_embedding_fits, without_lora
from diffaudit.inversion.sampling import Reconstructions, sample
from diffaudit.inversion.training import StepReport, TrainingState, stage_optimiser, train_stage
from diffaudit.judging.judge import Judge, Judged
from diffaudit.records import (
    CurvePoint,
    RunFolder,
    append_lines,
    read_curves,
    read_records,
    write_atomically,
    write_json,
)
from diffaudit.settings import InversionSettings, dump_settings
from diffaudit.study.checkpoints import load_checkpoint, load_tensors, save_checkpoint, save_tensors
from diffaudit.study.metrics import inversion_metrics
from diffaudit.study.pictures import save_pictures

Watcher = Callable[[Event], None]
PACKAGES = ("diffaudit", "torch", "diffusers", "peft", "transformers", "numpy", "scipy")


@dataclass(eq=False)
class _Run:
    """What the parts of a run share: its settings, its folder, who watches, and the seconds of each part."""

    settings: InversionSettings
    folder: RunFolder
    watch: Watcher
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Adds the time of a block to ``seconds[part]``."""
        began = time.perf_counter()
        yield
        self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - began


def run_inversion(
    settings: InversionSettings,
    folder: Path,
    *,
    command: str,
    on_event: Watcher | None = None,
    target: nn.Module | None = None,
) -> Path:
    """Runs an inversion into ``folder`` and returns it, report included. A stopped run goes on where it was.

    ``target`` is the Python object that a target of kind `given` stands for.

    Raises:
        RunConflict: the folder holds a run made with other settings.
        ThreatModelViolation: a judge is not independent of the attack.
    """
    from diffaudit.report.html import write_report

    run = _Run(settings, RunFolder(folder), on_event or (lambda event: None))
    _claim(run)
    manifest = _begin_manifest(run, command)
    with _reproducible(settings):
        with run.timed("load"):
            run.watch(Event("load", 0, 0, {}))
            build.check_separation(settings)
            attacker = build.build_attacker(settings, given=target)
        rows = _attack(run, attacker)
        with run.timed("judge"):
            run.watch(Event("judge", 0, 0, {}))
            judge = build.build_judge(settings.judging, attacker)
            if settings.reference_rows:
                rows["oracle"] = _oracle(run, attacker, judge)
            _judge(run, attacker, judge, rows)
    records = read_records(run.folder.records)
    earlier = json.loads(run.folder.metrics.read_text())["seconds"] if run.folder.metrics.exists() else None
    seconds = earlier or {name: round(value, 2) for name, value in run.seconds.items()}
    metrics = inversion_metrics(
        records,
        curves=read_curves(run.folder.curves),
        seconds=seconds,
        clip=settings.optimiser.clip,
        seed=settings.seed,
    )
    write_json(run.folder.metrics, metrics)
    _finish_manifest(run, manifest, attacker, judge, seconds)
    write_report(folder)
    return folder


def _attack(run: _Run, attacker: Attacker) -> dict[str, Reconstructions]:
    """The part that may know nothing of judges: start row, training, attack row."""
    settings = run.settings
    anchors = attacker.pseudo_anchors(settings.embedding.anchor_images)
    rows: dict[str, Reconstructions] = {}
    if settings.reference_rows:
        rows["start"] = _sampled(run, attacker, anchors, "start")
    with run.timed("train"):
        embedding = build.build_embedding(settings.embedding, anchors, attacker.public.embeddings, seed=settings.seed)
        check_embedding_fits(attacker.prior, embedding)
        if any("lora" in stage.trains and stage.steps for stage in settings.stages):
            add_lora(attacker.prior, rank=settings.lora.rank, alpha=settings.lora.alpha, seed=settings.seed)
        state = TrainingState(embedding, attacker)
        _train(run, state, anchors)
    with torch.no_grad():
        final = embedding(torch.arange(len(attacker.classes)))
    rows["attack"] = _sampled(run, attacker, final, "attack")
    return rows


def _train(run: _Run, state: TrainingState, anchors: Tensor) -> None:
    settings, folder = run.settings, run.folder
    objective = build.build_objective(settings, state.attacker, state.embedding)
    image = build.build_image_plan(settings.image)
    plans = build.build_stages(settings)
    checkpoint = folder.checkpoints / "training.safetensors"
    saved = load_checkpoint(checkpoint)
    done = 0 if saved is None else saved.step
    if saved is not None:
        _restore_parameters(state, saved.tensors)
        run.watch(Event("train", done, sum(plan.steps for plan in plans), {}, f"continues from step {done}"))
    _truncate_curves(folder, done)

    def pull(rows: Tensor) -> Tensor:
        match settings.terms.identity_anchor:
            case "learned":
                own: Tensor = state.embedding(rows)
                return own
            case "pseudo":
                return anchors[rows]

    for plan in plans:
        last = plan.first_step + plan.steps
        if plan.steps == 0 or done >= last:
            continue
        optimiser = stage_optimiser(state, plan)
        if saved is not None and done > plan.first_step:
            saved.restore(optimiser)
        pending: list[str] = []

        def on_step(report: StepReport, optimiser: torch.optim.Optimizer) -> None:
            total = plan.first_step + report.step + 1  # noqa: B023
            weights = objective.weighting.weights(total - 1)
            point = CurvePoint(
                stage=report.stage,
                step=total - 1,
                parts=report.parts,
                weights=weights,
                value=report.value,
                gradient_norm=report.gradient_norm,
                target_accuracy=report.target_accuracy,
            )
            pending.append(point.to_json())  # noqa: B023
            run.watch(Event(report.stage, report.step + 1, plan.steps, report.parts))  # noqa: B023
            if total % settings.checkpoint_every == 0 or total == last:  # noqa: B023
                append_lines(folder.curves, pending)  # noqa: B023
                pending.clear()  # noqa: B023
                save_checkpoint(checkpoint, step=total, tensors=_parameters(state), optimiser=optimiser)

        train_stage(
            state,
            objective,
            plan,
            image,
            optimiser,
            pull,
            seed=settings.seed,
            begin=max(0, done - plan.first_step),
            on_step=on_step,
        )


def _sampled(run: _Run, attacker: Attacker, embeddings: Tensor, row: str) -> Reconstructions:
    """A row's reconstructions, drawn or, where an earlier try drew them already, read back."""
    path = run.folder.checkpoints / f"row-{row}.safetensors"
    kept = load_tensors(path)
    if kept is not None:
        return Reconstructions(**kept)
    sampling = run.settings.sampling
    with run.timed("sample"):
        rebuilt = sample(
            attacker,
            embeddings,
            steps=sampling.steps,
            strength=sampling.strength,
            guidance_scale=sampling.guidance_scale,
            candidates=sampling.candidates,
            keep=sampling.keep,
            views=sampling.views,
            batch=sampling.batch,
            seed=run.settings.seed,
            on_batch=lambda done, total: run.watch(Event(f"sample {row}", done, total, {})),
        )
    save_tensors(path, vars(rebuilt))
    return rebuilt


def _oracle(run: _Run, attacker: Attacker, judge: Judge) -> Reconstructions:
    """The ceiling, which is no attack: the untrained prior under the true private mean of the attacker's encoder."""
    with torch.no_grad():
        private = torch.cat([attacker.encoder(part.float() / 255) for part in judge.private.images.split(128)])
        means = torch.stack([private[judge.private.labels == label].mean(0) for label in attacker.classes])
    with without_lora(attacker.prior):
        return _sampled(run, attacker, nn.functional.normalize(means, dim=1), "oracle")


def _judge(run: _Run, attacker: Attacker, judge: Judge, rows: dict[str, Reconstructions]) -> None:
    """Writes every row's pictures and records; rows that are recorded already are left alone."""
    judged = [
        Judged(name, r.images, r.labels, r.sources, attacker.public.images[r.sources])
        for name, r in sorted(rows.items(), key=lambda item: ("attack", "start", "oracle").index(item[0]))
    ]
    if run.settings.reference_rows:
        private = judge.private
        judged.append(Judged("upper", private.images, private.labels, None, None))
        judged.append(Judged("lower", private.images, _someone_else(private.labels), None, None))
    save_pictures(run.folder.images / "reference", judge.private.images, judge.private.labels)
    lines = []
    for part in judged:
        save_pictures(run.folder.images / part.row, part.images, part.labels)
        if part.sources is not None and part.source_images is not None:
            save_pictures(run.folder.images / "source", part.source_images, numbers=part.sources)
        lines += [record.to_json() for record in judge.records(part)]
    write_atomically(run.folder.records, "".join(line + "\n" for line in lines))


def _someone_else(labels: Tensor) -> Tensor:
    """Each picture's label replaced by the next class's: what chance and likeness alone would reach."""
    classes = labels.unique()
    following = torch.roll(classes, -1)
    return following[torch.searchsorted(classes, labels)]


def _claim(run: _Run) -> None:
    """Takes the folder for these settings, or refuses it."""
    wanted = dump_settings(run.settings)
    path = run.folder.settings
    if path.exists():
        if path.read_text() != wanted:
            raise RunConflict(
                f"{run.folder.path} holds a run made with other settings. Choose another --output, or delete it."
            )
        return
    if run.folder.path.exists() and any(run.folder.path.iterdir()):
        raise RunConflict(f"{run.folder.path} is not empty and holds no run. Choose another --output.")
    write_atomically(path, wanted)


def _begin_manifest(run: _Run, command: str) -> dict[str, Any]:
    path = run.folder.manifest
    earlier = json.loads(path.read_text()) if path.exists() else {}
    manifest: dict[str, Any] = {
        "diffaudit": version("diffaudit"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "device": run.settings.device,
        "threads": run.settings.threads or torch.get_num_threads(),
        "seed": run.settings.seed,
        "command": command,
        "threat_model": {"has": list(HAS), "has_not": list(HAS_NOT)},
        "is_attack": True,
        "started": earlier.get("started", datetime.now(UTC).isoformat(timespec="seconds")),
        "tries": earlier.get("tries", 0) + 1,
        "state": "running",
    }
    write_json(path, manifest)
    return manifest


def _finish_manifest(
    run: _Run, manifest: dict[str, Any], attacker: Attacker, judge: Judge, seconds: dict[str, float]
) -> None:
    models = {
        "target": attacker.classifier.fingerprint,
        "identity encoder": attacker.encoder.fingerprint,
        "judge identity encoder": judge.encoder.fingerprint,
        **{f"judge {name}": classifier.fingerprint for name, classifier in judge.classifiers.items()},
    }
    manifest |= {
        "models": {name: {"fingerprint": value} for name, value in models.items()},
        "num_classes": attacker.public.log_probabilities.shape[1],
        "seconds": seconds,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "state": "finished",
    }
    write_json(run.folder.manifest, manifest)


@contextmanager
def _reproducible(settings: InversionSettings) -> Iterator[None]:
    """Deterministic algorithms and the thread count asked for, while the block runs."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def _parameters(state: TrainingState) -> dict[str, Tensor]:
    groups = state.groups()
    return {f"{group}.{index}": value.detach() for group in groups for index, value in enumerate(groups[group])}


def _restore_parameters(state: TrainingState, tensors: dict[str, Tensor]) -> None:
    with torch.no_grad():
        for group, parameters in state.groups().items():
            for index, parameter in enumerate(parameters):
                parameter.copy_(tensors[f"{group}.{index}"])


def _truncate_curves(folder: RunFolder, done: int) -> None:
    kept = [point.to_json() for point in read_curves(folder.curves) if point.step < done]
    if folder.curves.exists():
        write_atomically(folder.curves, "".join(line + "\n" for line in kept))
