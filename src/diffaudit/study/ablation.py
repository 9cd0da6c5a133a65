"""Rows times seeds: every run of an ablation in a folder of its own, and the table made from them.

A finished run is never made again and a stopped one goes on, so that the same command continues a killed ablation, and
rows added to the file later join those that are there.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

import torch

from diffaudit import build
from diffaudit.errors import DiffauditError, InvalidSetting, RunConflict
from diffaudit.events import Event
from diffaudit.records import RunFolder, write_json
from diffaudit.settings import AuditSettings, InversionSettings, PerturbationSettings, SettingsError
from diffaudit.study.ablation_table import ablation_table
from diffaudit.study.manifest import may_be_taken, refuse_a_file
from diffaudit.study.perturbation_runner import run_perturbation
from diffaudit.study.planned_rows import Ablation, run_folder
from diffaudit.study.public_cache import PublicCache
from diffaudit.study.run import Watcher
from diffaudit.study.runner import run_inversion

FAILURES = (DiffauditError, ArithmeticError, LookupError, OSError, RuntimeError, ValueError)
"""What a run may fail with and leave the others be: settings, numbers, disks, memory. Anything else is our fault."""


@dataclass(frozen=True)
class PlannedRun:
    """One row at one seed: its settings and its folder."""

    key: str
    seed: int
    settings: AuditSettings
    folder: Path


def run_ablation(
    ablation: Ablation, folder: Path, *, command: str, workers: int = 1, on_event: Watcher | None = None
) -> Path:
    """Runs what is not finished of ``ablation``, writes ``ablation.json`` and the report, and returns ``folder``.

    A run that fails is told of in ``failures`` and tried again by the next call; its row is measured on the seeds that
    it has. ``workers`` processes share the runs; where the settings give no ``threads``, they share the cores too.

    Raises:
        InvalidSetting: ``workers`` below 1.
        SettingsError: rows that are not finished name what is not there; all of it at once.
        MissingExtra: such a row needs a package that is not installed, even if others do not.
        RunConflict: a run's folder holds a run made with other settings, or is a file.
        ThreatModelViolation: a row's judge is not independent of the attack.
    """
    from diffaudit.report.ablation import write_ablation_report

    if workers < 1:
        raise InvalidSetting("workers", "be a positive integer", workers)
    watch = on_event or (lambda event: None)
    runs = planned_runs(ablation, folder)
    refuse_a_file(folder)
    waiting = [run for run in runs if not RunFolder(run.folder).is_finished()]
    _refuse_at_the_door(runs, {run.key: run.settings for run in waiting})
    done = len(runs) - len(waiting)
    watch(Event("ablate", done, len(runs), {}, f"{done} of {len(runs)} runs are finished already" if done else ""))
    attempts = _in_turn if workers == 1 else _side_by_side
    failures: list[dict[str, str | int]] = []

    def tick(event: Event) -> None:
        watch(Event("ablate", done, len(runs), event.parts))

    for run, fault in attempts(waiting, PublicCache(folder / "cache"), command, workers, tick):
        done += 1
        if fault is not None:
            failures.append({"row": run.key, "seed": run.seed, "error": fault})
        watch(Event("ablate", done, len(runs), {}, f"{run.key} seed {run.seed}: {fault or 'finished'}"))
    watch(Event("compare", 0, 0, {}))
    write_json(folder / "ablation.json", ablation_table(ablation, folder, command=command, failures=failures))
    write_ablation_report(folder)
    return folder


def planned_runs(ablation: Ablation, folder: Path) -> list[PlannedRun]:
    """Every run, seed by seed, so that a stopped ablation has whole seeds to compare."""
    return [
        PlannedRun(row.key, seed, row.at(seed), run_folder(folder, row.key, seed))
        for seed in ablation.settings.seeds
        for row in ablation.rows
    ]


def _refuse_at_the_door(runs: Sequence[PlannedRun], waiting: Mapping[str, AuditSettings]) -> None:
    """Refuses folders of other ``runs``, and rows that wait and could not run."""
    faults: list[str] = []
    for key, settings in waiting.items():
        try:
            build.check_door(settings)
        except SettingsError as error:
            faults += [f"{key}: {fault}" for fault in error.faults]
    if faults:
        raise SettingsError("rows", faults)
    other = [str(run.folder) for run in runs if not may_be_taken(RunFolder(run.folder), run.settings)]
    if other:
        raise RunConflict(
            f"{len(other)} folders hold runs made with other settings: {', '.join(other[:3])}"
            f"{' and more' if len(other) > 3 else ''}. Choose another --output, or delete them."
        )


def _in_turn(
    runs: Sequence[PlannedRun], look: PublicCache, command: str, workers: int, tick: Watcher
) -> Iterator[tuple[PlannedRun, str | None]]:
    for run in runs:
        yield run, _attempt(run, look, command, tick)


def _side_by_side(
    runs: Sequence[PlannedRun], look: PublicCache, command: str, workers: int, tick: Watcher
) -> Iterator[tuple[PlannedRun, str | None]]:
    cores = os.cpu_count() or 1
    pool = ProcessPoolExecutor(
        min(workers, max(1, len(runs))),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(max(1, cores // workers),),
    )
    try:
        futures = {pool.submit(_attempt, run, look, command, None): run for run in runs}
        for future in as_completed(futures):
            yield futures[future], _answer(future)
    finally:
        pool.shutdown(cancel_futures=True)


def _begin_worker(threads: int) -> None:
    """A worker's share of the cores, and its end with its parent: one that went on alone would meet its successor."""
    torch.set_num_threads(threads)
    parent = multiprocessing.parent_process()
    assert parent is not None  # it was spawned

    def end_with_parent() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _answer(future: Future[str | None]) -> str | None:
    try:
        return future.result()
    except RuntimeError as error:  # a process that was killed breaks the pool; the same command goes on
        return _in_words(error)


def _attempt(run: PlannedRun, look: PublicCache, command: str, on_event: Watcher | None) -> str | None:
    """Makes one run; the answer is what went wrong, or None. In words: not every error survives the way to a parent."""
    try:
        match run.settings:
            case InversionSettings():
                run_inversion(run.settings, run.folder, command=command, on_event=on_event, look=look)
            case PerturbationSettings():
                run_perturbation(run.settings, run.folder, command=command, on_event=on_event)
            case _:
                assert_never(run.settings)
    except FAILURES as error:
        return _in_words(error)
    return None


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
