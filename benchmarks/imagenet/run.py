"""Runs every row of `rows.yaml` in every split by family, and writes the table; what is finished is left alone."""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from families import SPLITS, Split
from photographs import REPOSITORY
from results import Finished, results_page

from diffaudit._yaml import parse_yaml
from diffaudit.errors import InvalidSetting
from diffaudit.progress import RunProgress
from diffaudit.records import RunFolder
from diffaudit.settings import PerturbationSettings, dump_settings, load_perturbation

MODELS = "runs/imagenet-models"
"""Where the settings look for models and data."""
BASE = REPOSITORY / "configs" / "imagenet.yaml"
QUICK = {"images.count": 4, "batch": 4}
QUICK_ITERATIONS = 3


@dataclass(frozen=True)
class Row:
    """A way to attack: its name, a line that says what it is, and the settings that it lays over the base."""

    name: str
    says: str
    settings: Mapping[str, Any]


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, in order.

    Raises:
        InvalidSetting: not a mapping of names to ``says`` and ``set``.
    """
    try:
        found = [Row(name, row["says"], row["set"]) for name, row in parse_yaml(path.read_text()).items()]
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        rule = "be a YAML file of rows, each with `says` and `set`"
        raise InvalidSetting("rows", rule, str(path), f"{type(error).__name__}: {error}") from error
    return found


def settings_of(
    row: Row, split: Split, *, models: str = MODELS, every: int = 1, quick: bool = False
) -> PerturbationSettings:
    """The checked settings of one run.

    Raises:
        SettingsError: the row breaks rules.
    """
    values = {**split.settings(f"{MODELS}/data/models/imagenet"), **row.settings}
    values |= {"name": f"imagenet-{split.name}-{row.name}", "images.every": every}
    if quick:
        iterations = min(QUICK_ITERATIONS, values.get("budget.iterations", QUICK_ITERATIONS))
        values |= QUICK | {"budget.iterations": iterations}
        values["judging.references"] = values.get("judging.references", [])[:1]
    checked = load_perturbation(BASE, values)
    return checked if models == MODELS else PerturbationSettings.model_validate(_moved(checked.model_dump(), models))


def _moved(value: Any, models: str) -> Any:
    """The same with paths in ``models`` in place of :data:`MODELS`."""
    match value:
        case dict():
            return {key: _moved(below, models) for key, below in value.items()}
        case list():
            return [_moved(below, models) for below in value]
        case Path() | str() if Path(value).is_relative_to(MODELS):
            return str(Path(models) / Path(value).relative_to(MODELS))
        case _:
            return value


def chosen(names: Sequence[str] | None, known: Sequence[str], what: str) -> list[str]:
    """The ``known`` names that are asked for, in their own order; all if none is.

    Raises:
        InvalidSetting: a name that is not known.
    """
    unknown = sorted(set(names or ()) - set(known))
    if unknown:
        raise InvalidSetting(what, f"be of {', '.join(known)}", ", ".join(unknown))
    return [name for name in known if names is None or name in names]


def main() -> None:
    """Runs what is asked for and writes `results.md`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="of rows.yaml (default: all)")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help=f"of {', '.join(one.name for one in SPLITS)}")
    parser.add_argument("--file", type=Path, default=Path(__file__).with_name("rows.yaml"), help="another rows.yaml")
    parser.add_argument("--models", help=f"what train.py wrote (default: {MODELS}, or {MODELS}-quick)")
    parser.add_argument("--output", type=Path, help="the runs' folder (default: runs/imagenet, or runs/imagenet-quick)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="every N-th picture alone (default: all 200)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="four pictures, three iterations: a test of the machinery")
    arguments = parser.parse_args()
    trial = "-quick" if arguments.quick else ""
    output = arguments.output or Path(f"runs/imagenet{trial}")
    rows = read_rows(arguments.file)
    rows = [row for row in rows if row.name in chosen(arguments.rows, [row.name for row in rows], "rows")]
    names = chosen(arguments.splits, [split.name for split in SPLITS], "splits")
    splits = [split for split in SPLITS if split.name in names]
    models = arguments.models or f"{MODELS}{trial}"
    # All settings are checked before any work.
    asked = {
        (split.name, row.name): settings_of(
            row, split, models=models, every=arguments.every, quick=arguments.quick
        ).model_copy(update={"threads": arguments.threads})
        for row in rows
        for split in splits
    }
    finished = [
        Finished(split, row, attacked(settings, output / split / row)) for (split, row), settings in asked.items()
    ]
    page = output / "results.md"
    page.write_text(results_page(finished, {row.name: row.says for row in rows}), encoding="utf-8")
    print(page)


def attacked(settings: PerturbationSettings, folder: Path) -> RunFolder:
    """One run, or what is there of it and the rest."""
    from diffaudit.study.perturbation_runner import run_perturbation

    run = RunFolder(folder)
    if run.report.exists() and run.settings.read_text() == dump_settings(settings):
        return run
    print(folder, flush=True)
    with RunProgress() as progress:
        run_perturbation(settings, folder, command=shlex.join(["python", *sys.argv]), on_event=progress.update)
    return run


if __name__ == "__main__":
    main()
