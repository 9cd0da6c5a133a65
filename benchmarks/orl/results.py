"""Writes what README.md shows of a finished run: tables from its metrics, and its reconstructions; no photograph."""

import argparse
import json
from pathlib import Path

from PIL import Image, ImageDraw

from diffaudit.records import Record, RunFolder, read_records
from diffaudit.report.tables import judges_table, results_table, to_markdown

CELL, GAP, BORDER, COLUMNS = 96, 8, 3, 2
RECOGNISED, MISTAKEN, PLAIN = (46, 140, 87), (190, 60, 50), (255, 255, 255)
LEGEND = (
    "Each group: what was rebuilt of one person. A green frame where the judge {judge}",
    "recognises the person, a red one where it names somebody else.",
)


def reconstructions(run: RunFolder, judge: str) -> Image.Image:
    """All reconstructions of every private person, framed by a judge's vote."""
    attack = [record for record in read_records(run.records) if record.row == "attack"]
    labels = sorted({record.label for record in attack})
    kept = max(record.sample for record in attack) + 1
    group = kept * (CELL + GAP) + 2 * GAP
    rows = -(-len(labels) // COLUMNS)
    footer = 18 * len(LEGEND) + GAP
    sheet = Image.new("RGB", (COLUMNS * group + GAP, rows * (CELL + GAP) + GAP + footer), PLAIN)
    for index, label in enumerate(labels):
        left, top = GAP + (index // rows) * group, GAP + (index % rows) * (CELL + GAP)
        for record in sorted(_of(attack, label), key=lambda one: one.sample):
            sheet.paste(_framed(run.path / record.image, _colour(record, judge)), (left, top))
            left += CELL + GAP
    pen = ImageDraw.Draw(sheet)
    for number, line in enumerate(LEGEND):
        pen.text((GAP, sheet.height - footer + 18 * number), line.format(judge=judge), fill=(40, 40, 40), font_size=14)
    return sheet


def tables(run: RunFolder) -> str:
    """The run's results and judges in Markdown."""
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    return "\n".join(to_markdown(table) for table in (results_table(metrics), judges_table(metrics)))


def _of(records: list[Record], label: int) -> list[Record]:
    return [record for record in records if record.label == label]


def _colour(record: Record, judge: str) -> tuple[int, int, int]:
    return RECOGNISED if record.judges[judge].hit else MISTAKEN


def _framed(path: Path, colour: tuple[int, int, int]) -> Image.Image:
    frame = Image.new("RGB", (CELL, CELL), colour)
    side = CELL - 2 * BORDER
    with Image.open(path) as picture:
        frame.paste(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (BORDER, BORDER))
    return frame


def main() -> None:
    """Write `results.md` and `reconstructions.png` beside this script, or where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("runs/orl"))
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--judge", default="mobilefacenet", help="whose vote frames the pictures")
    arguments = parser.parse_args()
    run = RunFolder(arguments.run)
    (arguments.output / "results.md").write_text(tables(run), encoding="utf-8")
    sheet = reconstructions(run, arguments.judge).quantize(256)  # smaller, for a repository
    sheet.save(arguments.output / "reconstructions.png", optimize=True)
    print(arguments.output / "results.md")


if __name__ == "__main__":
    main()
