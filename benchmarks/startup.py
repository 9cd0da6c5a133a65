"""Prints how long ``import diffaudit`` and ``diffaudit --help`` take in a fresh interpreter, and whether torch came."""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src"
HELP = "import sys; sys.argv = ['diffaudit', {arguments}]; from diffaudit.cli import main; main()"
SCRIPTS = {
    "python, nothing imported": "pass",
    "import diffaudit": "import diffaudit",
    "diffaudit --help": HELP.format(arguments="'--help'"),
    "diffaudit invert --help": HELP.format(arguments="'invert', '--help'"),
}


def seconds(script: str) -> float:
    """Return the time that an interpreter takes to run ``script``, its own start included."""
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def loads_torch(script: str) -> bool:
    """Return whether torch is loaded after ``script``."""
    asked = f"import atexit, sys; atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); {script}"
    environment = os.environ | {"PYTHONPATH": str(SOURCES)}
    result = subprocess.run([sys.executable, "-c", asked], check=True, env=environment, capture_output=True, text=True)
    return result.stderr.splitlines()[-1] == "True"


def main() -> None:
    """Print a line for each script: median and fastest of the repeats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    for name, script in SCRIPTS.items():
        times = [seconds(script) for _ in range(repeats)]
        torch = "with torch" if loads_torch(script) else "without torch"
        print(f"{name:26} median {statistics.median(times):.3f} s, fastest {min(times):.3f} s, {torch}")


if __name__ == "__main__":
    main()
