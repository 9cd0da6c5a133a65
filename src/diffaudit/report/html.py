"""The report of a run or an ablation: one self-contained page, tables and figures, made from its files alone."""

from pathlib import Path

from diffaudit._yaml import parse_yaml
from diffaudit.records import RunFolder
from diffaudit.report.ablation import write_ablation_report
from diffaudit.report.inversion import write_inversion_report
from diffaudit.report.perturbation import write_perturbation_report


def write_report(run: Path) -> Path:
    """Write ``report.html``, ``tables/`` and ``figures/`` of the run in folder ``run``; return the page's path.

    A folder with an ``ablation.json`` is an ablation's; else the settings say by ``audit`` which page it is. The page
    holds everything it shows (pictures as data URIs, figures as SVG, no script) and asks for nothing from outside.

    Raises:
        InvalidSetting: the folder has no ``records.jsonl`` or no ``metrics.json``.
    """
    if (Path(run) / "ablation.json").is_file():
        return write_ablation_report(Path(run))
    settings = RunFolder(Path(run)).settings
    audit = parse_yaml(settings.read_text(encoding="utf-8")).get("audit") if settings.is_file() else None
    return write_perturbation_report(run) if audit == "perturbation" else write_inversion_report(run)
