"""One inversion run from settings to report: builds, trains, samples, judges; every finished part survives a kill."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffaudit import build
from diffaudit.events import Event
from diffaudit.inversion.attacker import HAS, HAS_NOT, Attacker
from diffaudit.inversion.finishing import adversarial_pixels
from diffaudit.inversion.generator import as_published, published_projector
from diffaudit.inversion.sampling import Reconstructions, sample
from diffaudit.judging.judge import Judge, Judged
from diffaudit.models.fingerprints import module_fingerprint, tensor_fingerprint
from diffaudit.records import ROWS, RunFolder, read_curves, read_records, write_atomically, write_json
from diffaudit.settings import InversionSettings
from diffaudit.study.checkpoints import load_tensors, save_tensors
from diffaudit.study.distribution import Embedded, distribution_metrics
from diffaudit.study.learned_weights import weights_at_bounds
from diffaudit.study.manifest import begin_manifest, claim, finish_manifest, hold
from diffaudit.study.metrics import inversion_metrics
from diffaudit.study.pictures import save_pictures
from diffaudit.study.run import InversionRun, Watcher, reproducible
from diffaudit.study.stages import train
from diffaudit.study.travel import travel

Json = dict[str, Any]


def run_inversion(
    settings: InversionSettings,
    folder: Path,
    *,
    command: str,
    on_event: Watcher | None = None,
    target: nn.Module | None = None,
    look: build.Look = build.look_at_public,
) -> Path:
    """Runs an inversion into ``folder`` and returns it, report included. A stopped run goes on where it was.

    ``target`` is the Python object that a target of kind `given` stands for; ``look`` shows the public pictures to the
    attacker's models, or remembers what they said (:class:`~diffaudit.study.public_cache.PublicCache`).

    Raises:
        SettingsError: the settings name what is not there.
        MissingExtra: a model or the weighting needs a package that is not installed.
        RunConflict: the folder holds a run made with other settings, models or public pictures.
        ThreatModelViolation: a judge is not independent of the attack.
    """
    from diffaudit.report.html import write_report

    run = InversionRun(settings, RunFolder(folder), on_event or (lambda event: None))
    claim(run)
    manifest = begin_manifest(run, command, has=HAS, has_not=HAS_NOT)
    with reproducible(settings):
        with run.timed("load"):
            run.watch(Event("load", 0, 0, {}))
            attacker = build.inversion_attacker(settings, given=target, look=look)
            models, data = _opened(attacker), {"public": tensor_fingerprint(attacker.public.images)}
            hold(run, manifest, models, data)
        projector = published_projector(attacker.prior)
        rows, moved = _attack(run, attacker, projector)
        with run.timed("judge"):
            run.watch(Event("judge", 0, 0, {}))
            judge = build.build_judge(settings.judging, attacker)
            if settings.reference_rows and attacker.prior.words is None:
                rows["oracle"] = _oracle(run, attacker, judge, projector)
            distribution, notes = _judge(run, attacker, judge, rows)
    records, curves = read_records(run.folder.records), read_curves(run.folder.curves)
    seconds = run.spent()
    for group, weight in weights_at_bounds(curves, settings).items():
        notes.append(f"{group}: the learned weight ended at its bound, {weight:.3g}; scale the terms to free it.")
    metrics = inversion_metrics(
        records,
        curves=curves,
        seconds=seconds,
        clip=settings.optimiser.clip,
        distribution=distribution,
        travel=moved,
        notes=notes,
        seed=settings.seed,
    )
    write_json(run.folder.metrics, metrics)
    models |= {
        "judge identity encoder": judge.encoder.fingerprint,
        **{f"judge {name}": classifier.fingerprint for name, classifier in judge.classifiers.items()},
    }
    data |= {"private": tensor_fingerprint(judge.private.images)}
    finish_manifest(run, manifest, models, data, num_classes=attacker.public.num_classes, seconds=seconds)
    write_report(folder)
    return folder


def _opened(attacker: Attacker) -> dict[str, str]:
    """Hashes of what the attacker holds, before anything of it is trained."""
    held = {"prior": attacker.prior, "perceptual": attacker.perceptual, "attributes": attacker.attributes}
    return {
        "target": attacker.classifier.fingerprint,
        "identity encoder": attacker.encoder.fingerprint,
        **{name: module_fingerprint(module) for name, module in held.items()},
    }


def _attack(
    run: InversionRun, attacker: Attacker, projector: Mapping[str, Tensor]
) -> tuple[dict[str, Reconstructions], Json]:
    """The part that may know nothing of judges: start row, training, attack row; and how far the training moved.

    What is trained is built first, for it may be refused, and the start row is minutes of work.
    """
    settings = run.settings
    anchors = attacker.pseudo_anchors(settings.embedding.anchor_images)
    rows: dict[str, Reconstructions] = {}
    with run.timed("train"):
        state = build.build_state(settings, attacker, anchors)
        gradient_weighting = build.build_gradient_weighting(settings)
    begun = anchors if state.embedding.is_identity else state.embedding.anchors
    if settings.reference_rows:
        with as_published(attacker.prior, projector):
            rows["start"] = _sampled(run, attacker, begun, "start")
    with run.timed("train"):
        train(run, state, anchors, gradient_weighting)
    with torch.no_grad():
        final = state.embedding(torch.arange(len(attacker.classes)))
    rows["attack"] = _sampled(run, attacker, final, "attack")
    if settings.sampling.finishing.steps:
        rows["attack-finished"] = _finished(run, attacker, rows["attack"])
    return rows, travel(state)


def _sampled(
    run: InversionRun, attacker: Attacker, embeddings: Tensor, row: str, *, kept_as: str | None = None
) -> Reconstructions:
    """A row's reconstructions under these embeddings, kept under the row's name or another."""

    def draw() -> Reconstructions:
        with run.timed("sample"):
            return sample(
                attacker,
                embeddings,
                build.build_sample_plan(run.settings.sampling, attack=row == "attack"),
                seed=run.settings.seed,
                on_batch=lambda done, total: run.watch(Event(f"sample {row}", done, total, {})),
            )

    return _kept(run, kept_as or row, draw)


def _finished(run: InversionRun, attacker: Attacker, drawn: Reconstructions) -> Reconstructions:
    """Adversarial examples made from the attack's reconstructions, which stay as they are."""
    asked, batch = run.settings.sampling.finishing, run.settings.sampling.batch

    def move() -> Reconstructions:
        parts = []
        with run.timed("finish"):
            for images, labels in zip(drawn.images.split(batch), drawn.labels.split(batch), strict=True):
                parts.append(
                    adversarial_pixels(attacker.classifier, images, labels, steps=asked.steps, rate=asked.rate)
                )
                run.watch(Event("finish attack", sum(map(len, parts)), len(drawn.images), {}))
        return replace(drawn, images=torch.cat(parts))

    return _kept(run, "attack-finished", move)


def _kept(run: InversionRun, row: str, make: Callable[[], Reconstructions]) -> Reconstructions:
    """A row's images, made or, where an earlier try made them already, read back."""
    path = run.folder.checkpoints / f"row-{row}.safetensors"
    kept = load_tensors(path)
    if kept is not None:
        return Reconstructions(**kept)
    made = make()
    save_tensors(path, vars(made))
    return made


def _oracle(run: InversionRun, attacker: Attacker, judge: Judge, projector: Mapping[str, Tensor]) -> Reconstructions:
    """What is no attack: the untrained prior under the true private mean of the attacker's encoder.

    It is drawn again where the private pictures have changed since an earlier try.
    """
    with torch.no_grad():
        private = torch.cat([attacker.encoder(part.float() / 255) for part in judge.private.images.split(128)])
        means = torch.stack([private[judge.private.labels == label].mean(0) for label in attacker.classes])
    mark = tensor_fingerprint(means)[:8]
    with as_published(attacker.prior, projector):
        return _sampled(run, attacker, nn.functional.normalize(means, dim=1), "oracle", kept_as=f"oracle-{mark}")


def _judge(
    run: InversionRun, attacker: Attacker, judge: Judge, rows: dict[str, Reconstructions]
) -> tuple[Json, list[str]]:
    """Writes every row's pictures, and the records of all rows at once; returns the rows as sets, with notes."""
    notes: list[str] = []
    if run.settings.reference_rows and "oracle" not in rows:
        notes.append("oracle: there is no row under the true embedding, which no words are known for.")
    judged = [
        Judged(name, r.images, r.labels, r.sources, attacker.public.images[r.sources])
        for name, r in sorted(rows.items(), key=lambda item: ROWS.index(item[0]))
    ]
    if run.settings.reference_rows:
        private = judge.private
        judged.append(Judged("upper", private.images, private.labels, None, None))
        others = _someone_else(private.labels)
        if others is None:
            notes.append(
                "lower: there is no row of other people's photographs, for the private pictures show one class."
            )
        else:
            judged.append(Judged("lower", private.images, others, None, None))
    save_pictures(run.folder.images / "reference", judge.private.images, judge.private.labels)
    lines, sets = [], {}
    for part in judged:
        embeddings = judge.embed(part.images)
        save_pictures(run.folder.images / part.row, part.images, part.labels)
        if part.sources is not None and part.source_images is not None:
            save_pictures(run.folder.images / "source", part.source_images, numbers=part.sources)
        lines += [record.to_json() for record in judge.records(part, embeddings=embeddings)]
        if part.row in rows:
            sets[part.row] = Embedded(embeddings, part.labels)
    write_atomically(run.folder.records, "".join(line + "\n" for line in lines))
    distribution, missing = _distribution(run, attacker, judge, sets)
    return distribution, [*notes, *missing]


def _distribution(
    run: InversionRun, attacker: Attacker, judge: Judge, sets: dict[str, Embedded]
) -> tuple[Json, list[str]]:
    """Every row against the private pictures, as sets, and ``public``: as many public pictures as the attack has.

    Row `lower` is left out, for under another's name the private pictures are the same set.
    """
    attack, private, notes = sets["attack"], judge.private, []
    if run.settings.reference_rows and len(attacker.public) >= len(attack):
        spread = torch.linspace(0, len(attacker.public) - 1, len(attack)).long()
        sets["public"] = Embedded(judge.embed(attacker.public.images[spread]), attack.labels)
    elif run.settings.reference_rows:
        notes.append(
            f"public: {len(attacker.public)} public pictures are no set to hold against {len(attack)} images, since "
            "the nearest neighbours depend on the number."
        )
    references = Embedded(judge.private_embeddings, private.labels)
    found, missing = distribution_metrics(sets, references, seed=run.settings.seed)
    return found, [*notes, *missing]


def _someone_else(labels: Tensor) -> Tensor | None:
    """Each picture's label replaced by the next class's: what chance and likeness alone would reach.

    None where there are fewer than two classes, for then nobody else is there.
    """
    classes = labels.unique()
    if len(classes) < 2:
        return None
    following = torch.roll(classes, -1)
    return following[torch.searchsorted(classes, labels)]
