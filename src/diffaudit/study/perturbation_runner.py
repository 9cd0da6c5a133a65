"""One perturbation run from settings to report: perturbs batch by batch and judges; what is done survives a kill."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from diffaudit import build
from diffaudit.events import Event
from diffaudit.judging.perturbed import PerturbationJudge, Perturbed
from diffaudit.models.fingerprints import module_fingerprint, tensor_fingerprint, text_fingerprint
from diffaudit.perturbation.references import Reference, reference_examples
from diffaudit.perturbation.scene import Perturber
from diffaudit.records import (
    REBUILT,
    PerturbationRecord,
    RunFolder,
    read_perturbation_records,
    write_atomically,
    write_json,
)
from diffaudit.settings import PerturbationSettings
from diffaudit.study.attack_course import course
from diffaudit.study.checkpoints import made_once
from diffaudit.study.manifest import begin_manifest, claim, finish_manifest, hold
from diffaudit.study.paired_sets import Json, set_distances
from diffaudit.study.perturbation_metrics import perturbation_metrics
from diffaudit.study.perturbed_batches import Done, perturbed_pictures
from diffaudit.study.pictures import read_pictures, save_pictures
from diffaudit.study.run import PerturbationRun, Watcher, reproducible

HAS = (
    "the surrogates: architecture, weights, gradients",
    "the pictures and their true classes",
    "a diffusion prior and its words, an identity encoder where the prior is told whom it draws, perceptual features",
)
HAS_NOT = (
    "the held-out models and their siblings",
    "the defences, but for purification, which is the work of its own prior",
    "any answer of theirs",
)


def run_perturbation(
    settings: PerturbationSettings,
    folder: Path,
    *,
    command: str,
    on_event: Watcher | None = None,
    given: Mapping[str, nn.Module] | None = None,
) -> Path:
    """Runs a perturbation into ``folder`` and returns it, report included. A stopped run goes on at its last batch.

    ``given`` are the Python objects that models of kind `given` stand for, by name.

    Raises:
        InvalidSetting: a model, a term, the mask or the loss does not fit the pictures (:func:`.rehearse`).
        SettingsError: the settings name what is not there.
        MissingExtra: a model, a term or a reference attack needs a package that is not installed.
        RunConflict: the folder holds a run made with other settings, models or pictures.
        ThreatModelViolation: a held-out model is not independent of a surrogate.
    """
    from diffaudit.report.html import write_report

    run = PerturbationRun(settings, RunFolder(folder), on_event or (lambda event: None))
    claim(run)
    manifest = begin_manifest(run, command, has=HAS, has_not=HAS_NOT)
    with reproducible(settings):
        with run.timed("load"):
            run.watch(Event("load", 0, 0, {}))
            parts = build.perturbation_parts(settings, given=given)
            pictures, perturber, judge = parts.pictures, parts.perturber, parts.judge
            models, data = _opened(perturber), _looked_at(pictures)
            hold(run, manifest, models, data)
        save_pictures(run.folder.images / "clean", pictures.images)
        done = perturbed_pictures(run, perturber, parts.plans, pictures)
        rows = [_attacked(run, pictures, done)]
        if settings.judging.rebuilt:
            rows.append(_row(run, REBUILT, done.rebuilt, pictures, done.goals))
        rows += _references(run, perturber, pictures, done.goals)
        with run.timed("judge"):
            run.watch(Event("judge", 0, 0, {}))
            _judge(run, judge, rows)
            sets, notes = _as_sets(run, judge, rows, pictures)
            notes += _left_alone(pictures, done)
    seconds = run.spent()
    records = read_perturbation_records(run.folder.records)
    _tell_course(run, perturber, records, done)
    models = {name: model.fingerprint for name, model in judge.models.items()} | models
    models |= {"judging perceptual": module_fingerprint(judge.perceptual)}
    models |= {} if judge.encoder is None else {"judging encoder": judge.encoder.fingerprint}
    metrics = perturbation_metrics(
        records,
        judge.roles,
        seconds=seconds,
        sets=sets,
        residual_added=settings.latents.residual,
        own_ruler=_reads_perceptual(settings) and models["perceptual"] == models["judging perceptual"],
        notes=notes,
        seed=settings.seed,
    )
    write_json(run.folder.metrics, metrics | {"seconds": seconds})
    met = sorted({number for record in records for number in (record.label, *record.predicted.values())})
    manifest["class_names"] = {str(number): pictures.classes[number] for number in met}
    finish_manifest(run, manifest, models, data, num_classes=len(pictures.classes), seconds=seconds)
    write_report(folder)
    return folder


def _opened(perturber: Perturber) -> dict[str, str]:
    """Hashes of what the attack holds."""
    found = {name: model.fingerprint for name, model in perturber.surrogates.items()}
    found |= {"prior": module_fingerprint(perturber.prior), "perceptual": module_fingerprint(perturber.perceptual)}
    return found if perturber.encoder is None else found | {"identity encoder": perturber.encoder.fingerprint}


def _looked_at(pictures: build.LabelledImages) -> dict[str, str]:
    """Hashes of the pictures, of their true classes and of all classes' names."""
    return {
        "pictures": tensor_fingerprint(pictures.images),
        "labels": tensor_fingerprint(pictures.labels),
        "class names": text_fingerprint("\n".join(pictures.classes)),
    }


def _reads_perceptual(settings: PerturbationSettings) -> bool:
    """Whether the attack chooses its iterates, or steps, by its perceptual distance."""
    return settings.budget.keep == "best" or any(term.kind == "perceptual" for term in settings.terms)


def _attacked(run: PerturbationRun, pictures: build.LabelledImages, done: Done) -> Perturbed:
    """Row ``attack``."""
    row = _row(run, "attack", done.images, pictures, done.goals)
    return replace(row, reconstructions=done.rebuilt, iterations=done.iterations)


def _left_alone(pictures: build.LabelledImages, done: Done) -> list[str]:
    """A note on the pictures that broke off; none where there are none."""
    names = [name for name, broken in zip(pictures.names, done.broken.tolist(), strict=True) if broken]
    if not names:
        return []
    some = ", ".join(names[:10]) + (", ..." if len(names) > 10 else "")
    why = "for the picture or its gradient was not finite"
    return [f"attack: {len(names)} of {len(pictures)} left alone early, {why} ({some})."]


def _row(
    run: PerturbationRun, name: str, images: Tensor, pictures: build.LabelledImages, goals: Tensor | None
) -> Perturbed:
    """A row as read back from its PNG files."""
    save_pictures(run.folder.images / name, images)
    judged = read_pictures(run.folder.images / name, len(pictures))
    kept = None if pictures.deserved is None else pictures.deserved(judged.float() / 255) == pictures.labels
    return Perturbed(
        row=name,
        images=judged,
        clean=pictures.images,
        labels=pictures.labels,
        names=pictures.names,
        numbers=range(len(pictures)),
        goals=goals,
        kept=kept,
    )


def _references(
    run: PerturbationRun, perturber: Perturber, pictures: build.LabelledImages, goals: Tensor | None
) -> Iterator[Perturbed]:
    """The reference attacks on pixels, on the same surrogates, or what an earlier try made of them."""
    for asked in run.settings.judging.references:
        reference = Reference(asked.method, asked.budget)
        run.watch(Event(f"reference {reference.name}", 0, 0, {}))
        path = run.folder.checkpoints / f"{reference.name}.safetensors"
        make = partial(_examples, run, perturber, pictures, goals, reference)
        made, run.seconds[reference.name] = made_once(path, make)
        yield _row(run, reference.name, made["images"], pictures, goals)


def _examples(
    run: PerturbationRun,
    perturber: Perturber,
    pictures: build.LabelledImages,
    goals: Tensor | None,
    reference: Reference,
) -> dict[str, Tensor]:
    surrogates, seed = list(perturber.surrogates.values()), run.settings.seed
    return {"images": reference_examples(reference, surrogates, pictures.images, pictures.labels, goals, seed=seed)}


def _judge(run: PerturbationRun, judge: PerturbationJudge, rows: Sequence[Perturbed]) -> None:
    """Writes the records of all rows at once."""
    found = judge.records(rows, seed=run.settings.seed, batch=run.settings.batch)
    write_atomically(run.folder.records, "".join(record.to_json() + "\n" for record in found))


def _tell_course(run: PerturbationRun, perturber: Perturber, records: Sequence[PerturbationRecord], done: Done) -> None:
    """Writes down how the attack went, step by step."""
    attack = [record for record in records if record.row == "attack"]
    right = {name: [record.clean_hits[name] for record in attack] for name in perturber.surrogates}
    points = course(done.course, right)
    write_atomically(run.folder.curves, "".join(point.to_json() + "\n" for point in points))


def _as_sets(
    run: PerturbationRun, judge: PerturbationJudge, rows: Sequence[Perturbed], pictures: build.LabelledImages
) -> tuple[dict[str, Json], list[str]]:
    """Every row's distances to the clean pictures as sets, with notes; nothing where no encoder was given."""
    if judge.encoder is None:
        return {}, ["kernel_distance, frechet_distance: `judging.encoder` is null."]
    batch = run.settings.batch
    embedded = {row.row: judge.embed(row.images, batch=batch) for row in rows}
    return set_distances(embedded, judge.embed(pictures.images, batch=batch), seed=run.settings.seed)
