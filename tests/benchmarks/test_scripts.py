"""Every benchmark's script can be started: what it imports is there."""

import runpy
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path for path in BENCHMARKS.glob("**/*.py") if '"__main__"' in path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(BENCHMARKS)))
def test_a_script_explains_itself(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(script.parent))
    monkeypatch.setattr(sys, "argv", [script.name, "--help"])
    try:
        with pytest.raises(SystemExit) as left:
            runpy.run_path(str(script), run_name="__main__")
    finally:
        for name in {path.stem for path in script.parent.glob("*.py")} - before:
            sys.modules.pop(name, None)
    assert left.value.code in (0, None)
    assert "usage:" in capsys.readouterr().out
