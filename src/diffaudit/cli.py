"""The commands. Each handler parses, calls one function and prints; what is heavy is imported inside it.

Results go to stdout, progress and complaints to stderr. Exit codes: 0 done, 1 something of it failed (a row of an
ablation, a finding of the doctor), 2 refused or stopped by a fault that is named, 130 interrupted.
"""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from diffaudit.errors import DiffauditError, InvalidSetting

FAULT = 2
INTERRUPTED = 130


class Commands(TyperGroup):
    """All commands, with one way to fail: a message on stderr, no traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command; our errors exit with 2, an interruption with 130."""
        try:
            return super().invoke(ctx)
        except DiffauditError as error:
            _complain(str(error))
            raise typer.Exit(FAULT) from error
        except KeyboardInterrupt as error:
            _complain(f"Interrupted. To go on, continue with the same command: {_command()}")
            raise typer.Exit(INTERRUPTED) from error


SettingsFile = Annotated[
    str, typer.Argument(metavar="SETTINGS.yaml", help="A settings file, or a shipped configuration by name.")
]
Assignments = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: `seed=1`. Repeatable.")
]
RunOutput = Annotated[Path | None, typer.Option(metavar="DIR", help="The run's folder.", show_default="runs/NAME")]

app = typer.Typer(
    cls=Commands,
    help="Audit image classifiers with a diffusion prior: what do they leak, and what fools them?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        import diffaudit

        typer.echo(f"diffaudit {diffaudit.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def invert(
    settings: SettingsFile = "quick",
    assignments: Assignments = None,
    output: RunOutput = None,
    classes: Annotated[
        str | None, typer.Option(metavar="all|N|i,j,k", help="All classes, N drawn by the seed, or these indices.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A trial: few classes, few steps, few images.")] = False,
    health: Annotated[bool, typer.Option("--health", help="Look at the training's health, for the report.")] = False,
) -> None:
    """Ask what a classifier leaks: reconstruct its classes from the model alone, and judge the result."""
    from rich.console import Console

    from diffaudit.configurations import settings_path
    from diffaudit.quick import trial
    from diffaudit.records import RunFolder
    from diffaudit.settings import load_settings
    from diffaudit.summary import summary_table

    overrides = parse_assignments(assignments or [])
    if classes is not None:
        overrides["classes"] = parse_classes(classes)
    if health:
        overrides["health"] = True
    checked = load_settings(settings_path(settings), overrides)
    if quick:
        checked = trial(checked)

    from diffaudit.progress import RunProgress
    from diffaudit.study.runner import run_inversion  # torch from here on: a fault above is told at once

    with RunProgress() as progress:
        folder = run_inversion(
            checked, output or Path("runs") / checked.name, command=_command(), on_event=progress.update
        )
    run = RunFolder(folder)
    Console().print(summary_table(json.loads(run.metrics.read_text(encoding="utf-8"))))
    typer.echo(run.report)


@app.command()
def perturb(
    settings: SettingsFile = "perturb",
    assignments: Assignments = None,
    output: RunOutput = None,
) -> None:
    """Ask what fools a classifier, and models it never met: perturb pictures in a diffusion latent, and judge them."""
    from rich.console import Console

    from diffaudit.configurations import settings_path
    from diffaudit.records import RunFolder
    from diffaudit.settings import load_perturbation
    from diffaudit.summary import perturbation_summary_table

    checked = load_perturbation(settings_path(settings), parse_assignments(assignments or []))

    from diffaudit.progress import RunProgress
    from diffaudit.study.perturbation_runner import (
        run_perturbation,  # torch from here on: a fault above is told at once
    )

    with RunProgress() as progress:
        folder = run_perturbation(
            checked, output or Path("runs") / checked.name, command=_command(), on_event=progress.update
        )
    run = RunFolder(folder)
    Console().print(perturbation_summary_table(json.loads(run.metrics.read_text(encoding="utf-8"))))
    typer.echo(run.report)


@app.command()
def train(
    what: Annotated[
        list[str] | None, typer.Argument(metavar="WHAT", help="Names of bundled models.", show_default="all")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Each model gets a folder in it.")] = Path("runs/models"),
    quick: Annotated[bool, typer.Option("--quick", help="A trial: a few steps each, useless weights.")] = False,
) -> None:
    """Train the bundled models from public data; what is finished in the folder is left alone."""
    from diffaudit.progress import RunProgress
    from diffaudit.training.bundle import train_bundle

    with RunProgress() as progress:
        train_bundle(what or ["all"], output, quick=quick, on_event=progress.update)
    typer.echo(output)


@app.command()
def ablate(
    settings: Annotated[
        str, typer.Argument(metavar="ABLATION.yaml", help="An ablation's file, or a shipped one by name.")
    ] = "ablation",
    output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The ablation's folder.", show_default="runs/NAME")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", help="Processes that share the runs.")] = 1,
) -> None:
    """Measure what each row of settings is worth, in either audit: rows times seeds, paired; finished runs stay."""
    from diffaudit.configurations import settings_path
    from diffaudit.study.ablation_rows import load_ablation

    ablation = load_ablation(settings_path(settings))

    from diffaudit.progress import RunProgress
    from diffaudit.study.ablation import run_ablation  # torch from here on: a fault above is told at once

    with RunProgress() as progress:
        folder = run_ablation(
            ablation,
            output or Path("runs") / ablation.settings.name,
            command=_command(),
            workers=workers,
            on_event=progress.update,
        )
    failures = json.loads((folder / "ablation.json").read_text(encoding="utf-8"))["failures"]
    for failure in failures:
        _complain(f"{failure['row']}, seed {failure['seed']}: {failure['error']}")
    typer.echo(folder / "report.html")
    if failures:
        raise typer.Exit(1)


@app.command()
def report(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", exists=True, file_okay=False, help="The folder of a run or an ablation.")
    ],
) -> None:
    """Write a run's or an ablation's report again, from its files."""
    from diffaudit.report.html import write_report

    typer.echo(write_report(run))


@app.command()
def doctor() -> None:
    """Say what is installed, what is missing, and what to do."""
    from rich.console import Console

    from diffaudit.doctor import examine, findings_table, is_sound

    findings = examine()
    Console().print(findings_table(findings))
    for finding in findings:
        if finding.remedy:
            typer.echo(f"{finding.name}: {finding.remedy}")
    if not is_sound(findings):
        raise typer.Exit(1)


@app.command()
def check(settings: SettingsFile, assignments: Assignments = None) -> None:
    """Open and try all that a run of either audit would, judges too, and stop: nothing is attacked, no run begun."""
    from diffaudit.configurations import settings_path
    from diffaudit.settings import load_audit

    checked = load_audit(settings_path(settings), parse_assignments(assignments or []))

    from diffaudit.build import check_audit  # torch from here on: a fault above is told at once

    typer.echo(f"{checked.name} can run: {check_audit(checked)}")


@app.command()
def settings(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A settings file, or a shipped configuration by name.")
    ] = "quick",
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema of such settings instead.")] = False,
) -> None:
    """Check a settings file of either audit and print it complete, every default filled in."""
    from diffaudit.configurations import settings_path
    from diffaudit.settings import dump_settings, load_audit, settings_schema

    checked = load_audit(settings_path(file))
    if schema:
        typer.echo(json.dumps(settings_schema(type(checked)), indent=2))
    else:
        typer.echo(dump_settings(checked), nl=False)


def parse_assignments(texts: list[str]) -> dict[str, Any]:
    """``KEY=VALUE`` texts as a mapping of dotted keys to YAML values; a later one wins.

    >>> parse_assignments(["seed=3", "stages.0.steps=10", "name=a=b", "device="])
    {'seed': 3, 'stages.0.steps': 10, 'name': 'a=b', 'device': None}

    Raises:
        InvalidSetting: no ``=``, an empty key, or a value that is not YAML.
    """
    from diffaudit._yaml import parse_yaml

    values: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InvalidSetting("--set", "read KEY=VALUE", text, "For example: --set stages.0.steps=10")
        try:
            values[key.strip()] = parse_yaml(value)
        except ValueError as error:
            raise InvalidSetting("--set", "give its value as YAML", text) from error
    return values


def parse_classes(text: str) -> str | int | list[str | int]:
    """The ``classes`` setting of a command line; what is neither number nor list is left for the settings to refuse.

    >>> parse_classes("all"), parse_classes("20"), parse_classes("3,14,15"), parse_classes("3,")
    ('all', 20, [3, 14, 15], [3])
    """
    if "," in text:
        return [_number(part.strip()) for part in text.split(",") if part.strip()]
    return _number(text)


def _number(text: str) -> str | int:
    try:
        return int(text)
    except ValueError:
        return text


def _command() -> str:
    return shlex.join(["diffaudit", *sys.argv[1:]])


def _complain(message: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(stderr=True).print(Text("error: ", style="bold red") + Text(message), soft_wrap=True)


def main() -> None:
    """The console script."""
    app(prog_name="diffaudit")


if __name__ == "__main__":
    main()
