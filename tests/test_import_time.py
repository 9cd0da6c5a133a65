"""What may not be loaded before it is needed. Seconds are printed by benchmarks/startup.py, not asserted."""

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import diffaudit

COMMANDS = ("invert", "ablate", "train", "report", "doctor", "settings")
SOURCES = Path(diffaudit.__file__).parents[1]
HEAVY = {"accelerate", "diffusers", "kornia", "matplotlib", "numpy", "peft", "scipy", "torch", "transformers"}


def loaded_by(code: str) -> set[str]:
    """The modules that a fresh interpreter holds after ``code``; what is heavy is among them by its top module."""
    script = f"import sys; sys.path.insert(0, {str(SOURCES)!r})\n{code}\nprint('\\n', *sys.modules, file=sys.stderr)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stderr.splitlines()[-1].split())


def test_the_package_loads_nothing() -> None:
    loaded = loaded_by("import diffaudit; diffaudit.__version__; dir(diffaudit)")
    assert "diffaudit" in loaded
    assert not loaded & (HEAVY | {"pydantic", "yaml", "typer", "rich", "jinja2"})


@pytest.mark.parametrize("name", ["InversionSettings", "load_settings", "read_records", "DiffauditError", "invert"])
def test_settings_and_records_need_no_torch(name: str) -> None:
    assert not loaded_by(f"from diffaudit import {name}") & HEAVY


@pytest.mark.parametrize(
    "arguments",
    ["--help", "--version", *(f"{command} --help" for command in COMMANDS)],
)
def test_help_loads_neither_torch_nor_the_settings(arguments: str) -> None:
    loaded = loaded_by(
        f"sys.argv = ['diffaudit', *{arguments.split()}]\n"
        "from diffaudit.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code"
    )
    assert "typer" in loaded
    assert not loaded & (HEAVY | {"yaml", "diffaudit.settings"})  # pydantic is loaded by typer itself


def test_settings_are_checked_without_torch() -> None:
    assert not loaded_by("from diffaudit.settings import load_settings; load_settings(None)") & HEAVY


def test_the_package_runs_as_a_module() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "diffaudit", "--version"], capture_output=True, text=True, check=True, cwd=SOURCES
    )
    assert result.stdout == f"diffaudit {diffaudit.__version__}\n"


def test_every_name_that_is_promised_is_there() -> None:
    for name in diffaudit.__all__:
        assert getattr(diffaudit, name) is not None
    assert set(diffaudit.__all__) <= set(dir(diffaudit))
    with pytest.raises(AttributeError, match="module 'diffaudit' has no attribute 'nothing'"):
        _ = diffaudit.nothing


def test_the_version_is_the_installed_one() -> None:
    try:
        assert diffaudit.__version__ == version("diffaudit")
    except PackageNotFoundError:
        assert diffaudit.__version__ == "0+unknown"
