"""The training of a run, stage by stage: curves, looks at its health, and checkpoints that survive a kill."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffaudit import build
from diffaudit.errors import NotFinite
from diffaudit.events import Event
from diffaudit.inversion.plans import StagePlan
from diffaudit.inversion.state import TrainingState, stage_optimiser
from diffaudit.inversion.training import StepReport, train_stage
from diffaudit.records import CurvePoint, RunFolder, append_lines, read_curves, read_health, write_atomically
from diffaudit.study.checkpoints import load_checkpoint, save_checkpoint
from diffaudit.study.run import InversionRun
from diffaudit.weighting.gradient import GradientWeighting


def train(
    run: InversionRun,
    state: TrainingState,
    anchors: Tensor,
    gradient_weighting: GradientWeighting | None = None,
) -> None:
    """Trains ``state`` through all stages of the settings, from the run's checkpoint where there is one.

    Raises:
        NotFinite: a loss or its gradient; the state of the step before is saved, and what was seen up to there.
    """
    settings = run.settings
    plans = build.build_stages(settings)
    saved = load_checkpoint(run.folder.training)
    done = 0 if saved is None else saved.step
    if saved is not None:
        state.restore(saved.tensors)
        run.watch(Event("train", done, sum(plan.steps for plan in plans), {}, f"continues from step {done}"))
    _forget_after(run.folder, done)

    def pull(rows: Tensor) -> Tensor:
        match settings.terms.identity_anchor:
            case "learned":
                own: Tensor = state.embedding(rows)
                return own
            case "pseudo":
                return anchors[rows]

    for plan in plans:
        if plan.steps == 0 or done >= plan.first_step + plan.steps:
            continue
        optimiser = stage_optimiser(state, plan)
        if saved is not None and done > plan.first_step:
            saved.restore(optimiser)
        journal = _Journal(run, state, plan, max(done, plan.first_step))
        try:
            train_stage(
                state,
                plan,
                build.build_image_plan(settings.image),
                optimiser,
                pull,
                seed=settings.seed,
                begin=max(0, done - plan.first_step),
                gradient_weighting=gradient_weighting,
                look_every=settings.checkpoint_every if settings.health else None,
                on_step=journal.note,
            )
        except NotFinite:
            journal.save(optimiser)
            raise


@dataclass(eq=False)
class _Journal:
    """What was seen since the last checkpoint. It is written with the next one, so that both tell of the same steps."""

    run: InversionRun
    state: TrainingState
    plan: StagePlan
    done: int
    points: list[str] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)

    def note(self, report: StepReport, optimiser: torch.optim.Optimizer) -> None:
        """Takes a step down, and saves where a checkpoint is due."""
        point = CurvePoint(
            stage=report.stage,
            step=self.done,
            parts=report.parts,
            weights=report.weights,
            value=report.value,
            gradient_norm=report.gradient_norm,
            target_accuracy=report.target_accuracy,
        )
        self.points.append(point.to_json())
        if report.health is not None:
            self.looks.append(report.health.to_json())
        self.done += 1
        self.run.watch(Event(report.stage, report.step + 1, self.plan.steps, report.parts))
        if self.done % self.run.settings.checkpoint_every == 0 or report.step + 1 == self.plan.steps:
            self.save(optimiser)

    def save(self, optimiser: torch.optim.Optimizer) -> None:
        """Writes what was seen, then the state."""
        append_lines(self.run.folder.curves, self.points)
        append_lines(self.run.folder.health, self.looks)
        self.points.clear()
        self.looks.clear()
        save_checkpoint(self.run.folder.training, step=self.done, tensors=self.state.tensors(), optimiser=optimiser)


def _forget_after(folder: RunFolder, done: int) -> None:
    """Takes out what was seen after the checkpoint: those steps are taken again."""
    for path, points in ((folder.curves, read_curves(folder.curves)), (folder.health, read_health(folder.health))):
        if path.exists():
            write_atomically(path, "".join(point.to_json() + "\n" for point in points if point.step < done))
