"""What the pages of all audits share: templates, key numbers, durations, and a run's files."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from diffaudit.errors import InvalidSetting
from diffaudit.records import RunFolder, write_atomically
from diffaudit.report.tables import Table, to_latex, to_markdown
from diffaudit.report.wording import DIRECTIONS, percent

Json = Mapping[str, Any]

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Card:
    """A key number: what it is, the number, its interval, and a word on it."""

    title: str
    value: str
    interval: str
    note: str


def finished_run(run: Path, command: str) -> tuple[RunFolder, Json, Json]:
    """The folder of a run, its metrics and its manifest; the manifest is empty where there is none.

    Raises:
        InvalidSetting: the folder has no ``records.jsonl`` or no ``metrics.json``; ``command`` would finish the run.
    """
    folder = RunFolder(Path(run))
    for path in (folder.records, folder.metrics):
        if not path.is_file():
            rule, remedy = f"be a folder with a `{path.name}`", f"Finish the run: `diffaudit {command} SETTINGS.yaml`."
            raise InvalidSetting("run", rule, str(run), remedy)
    metrics: Json = json.loads(folder.metrics.read_text(encoding="utf-8"))
    manifest: Json = json.loads(folder.manifest.read_text(encoding="utf-8")) if folder.manifest.is_file() else {}
    return folder, metrics, manifest


def write_run_page(folder: RunFolder, template: str, metrics: Json, manifest: Json, **contents: object) -> Path:
    """Write a run's page from a template, its ``contents`` beside what every run's page shows; return its path."""
    page = (
        environment()
        .get_template(template)
        .render(
            name=called(folder.path.resolve()),
            metrics=metrics,
            manifest=manifest,
            directions=DIRECTIONS,
            settings=folder.settings.read_text(encoding="utf-8") if folder.settings.is_file() else "",
            **contents,
        )
    )
    write_atomically(folder.report, page)
    return folder.report


def called(run: Path) -> str:
    """What a page calls a run: its folder's name, and of a row of an ablation, whose folder is its seed, the row's too.

    >>> called(Path("runs/mine")), called(Path("runs/ablation/runs/full/0"))
    ('mine', 'full, seed 0')
    """
    of_an_ablation = run.name.isdecimal() and run.parent.parent.name == "runs"
    return f"{run.parent.name}, seed {run.name}" if of_an_ablation else run.name


def write_tables(folder: RunFolder, *tables: Table) -> None:
    """Write each table as Markdown and LaTeX under ``tables/``."""
    for table in tables:
        write_atomically(folder.path / "tables" / f"{table.name}.md", to_markdown(table))
        write_atomically(folder.path / "tables" / f"{table.name}.tex", to_latex(table))


def environment() -> Environment:
    """The page templates, with everything that is put into them escaped."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = duration
    environment.filters["percent"] = percent
    return environment


def duration(seconds: float | None) -> str:
    """Seconds in words.

    >>> duration(3.21), duration(75), duration(7260)
    ('3.2 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds is None:
        return "unknown"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
