"""Makes one table of the three splits: each of the seven networks is held out in exactly one of them.

A picture counts once, with its mean over the splits in which it counts, so that intervals and tests, which take
pictures as independent, are of the same number as the table.
"""

import argparse
import hashlib
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np

from diffaudit.errors import InvalidSetting
from diffaudit.records import write_json
from diffaudit.report.ablation import write_ablation_report
from diffaudit.study.ablation_rows import load_ablation
from diffaudit.study.ablation_table import settings_hash, table_of_rows
from diffaudit.study.measured_rows import TableRow, measured_rows
from diffaudit.study.row_images import RowImages

HERE = Path(__file__).parent
SPLITS = ("without-squeezenet", "without-mobilenet-v1", "without-mbconv")
DEFENCES = ("jpeg-75", "depth-4", "resize-pad-0.85", "purification-0.2-4")
MEASURES = (
    *("white_box_mean", "transfer_mean", "perceptual_distance", "ssim", "psnr", "linf"),
    *(f"defended.{name}" for name in DEFENCES),
)
"""What has the same meaning in every split; one network's success has not, for its role differs."""


def together(parts: Sequence[RowImages]) -> RowImages:
    """The pictures of a row by name, each with its mean over the splits; NaN where no split counts it."""
    pictures = sorted({str(key[0]) for part in parts for key in part.keys})
    columns = {}
    for name in MEASURES:
        found: dict[str, list[float]] = {picture: [] for picture in pictures}
        for part in parts:
            for key, value in zip(part.keys, part.columns[name].tolist(), strict=True):
                if math.isfinite(value):
                    found[str(key[0])].append(value)
        columns[name] = np.array([fmean(values) if values else math.nan for values in found.values()])
    keys = tuple((picture, 0, place) for place, picture in enumerate(pictures))
    return RowImages(keys, columns, parts[0].shares & set(MEASURES))


def pooled(splits: Mapping[str, Sequence[TableRow]]) -> list[TableRow]:
    """The rows over all splits, in the first one's order.

    Raises:
        InvalidSetting: a split lacks a row that another has.
    """
    by_key = {split: {row.key: row for row in rows} for split, rows in splits.items()}
    every = {key for rows in by_key.values() for key in rows}
    for split, rows in by_key.items():
        if lacking := sorted(every - rows.keys()) or (["every row"] if not rows else []):
            raise InvalidSetting("runs", f"lack no row of {split}", lacking, "Run it first.")
    return [
        TableRow(
            row.name,
            row.mode,
            together([rows[row.key].images for rows in by_key.values()]),
            is_baseline=row.is_baseline,
            is_reference=row.is_reference,
        )
        for row in next(iter(splits.values()))
    ]


def main() -> None:
    """Read the finished rows under `runs/`; write `runs/imagenet-splits/` with a table and a report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the three ablations lie")
    arguments = parser.parse_args()
    ablations = {split: load_ablation(HERE / f"{split}.yaml") for split in SPLITS}
    notes = [f"A picture's mean over the splits in which it counts: {', '.join(SPLITS)}."]
    found = {split: measured_rows(each, arguments.runs / split, notes) for split, each in ablations.items()}
    first, command = SPLITS[0], "python benchmarks/imagenet/over_splits.py"
    table = table_of_rows(ablations[first], arguments.runs / first, pooled(found), notes, command=command)
    hashes = "".join(settings_hash(each) for each in ablations.values())
    table |= {"name": "imagenet-splits", "settings_hash": hashlib.sha256(hashes.encode()).hexdigest()}
    output = arguments.runs / "imagenet-splits"
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "ablation.json", table)
    print(write_ablation_report(output))


if __name__ == "__main__":
    try:
        main()
    except InvalidSetting as error:
        sys.exit(f"error: {error}")
