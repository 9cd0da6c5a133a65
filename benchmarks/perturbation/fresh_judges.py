"""Asks two models that no choice ever saw about the pictures of finished rows.

The held-out models of the table also judged while settings were chosen, on other faces. These two, a transformer of
patches and a network of wide kernels, are trained here for the first time, and asked once.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffaudit.data.captions import CLEAR_HAIR, HAIR_LABELS, hair_clearness, hair_labels
from diffaudit.records import PerturbationRecord, RunFolder, read_perturbation_records
from diffaudit.report.tables import pipe_table
from diffaudit.study.metrics import vote_rate
from diffaudit.study.perturbation_comparison import paired_success
from diffaudit.study.perturbation_metrics import success_on_right
from diffaudit.study.pictures import read_pictures
from diffaudit.training.classifier import accuracy, classification_loss
from diffaudit.training.loop import Schedule, fit
from diffaudit.training.pool import Pool, even_rows, rendered_pool
from diffaudit.training.populations import public_identities, unseen_crowd

PEOPLE, PICTURES = 400, 6
"""Of each label, and of each of these people."""
BATCH = 32
RESULTS = Path(__file__).with_name("fresh_judges.json")


class Patches(nn.Module):
    """A transformer of 8 x 8 patches (Dosovitskiy et al., *An Image Is Worth 16x16 Words*, 2021, arXiv 2010.11929)."""

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 8, 8)
        self.places = nn.Parameter(0.02 * torch.randn(1, 64, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(HAIR_LABELS)))

    def forward(self, images: Tensor) -> Tensor:
        seen = self.blocks(self.patches(2 * images - 1).flatten(2).mT + self.places)
        logits: Tensor = self.head(seen.mean(1))
        return logits


class WideKernels(nn.Sequential):
    """Few layers of 7 x 7 and 5 x 5 kernels, group norm and maxima over quarters of the picture."""

    def __init__(self) -> None:
        def block(inputs: int, outputs: int, kernel: int, stride: int) -> tuple[nn.Module, ...]:
            return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.GroupNorm(4, outputs), nn.GELU()

        super().__init__(
            *block(3, 12, 7, 2),
            *block(12, 16, 5, 2),
            *block(16, 24, 5, 2),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(24 * 4, len(HAIR_LABELS)),
        )


RECIPES: dict[str, tuple[Callable[[], nn.Module], int, Schedule]] = {
    "patches": (Patches, 61, Schedule(steps=6000, rate=2e-3, warmup=300, average=0.998)),
    "wide-kernels": (WideKernels, 62, Schedule(steps=4000, rate=4e-3, average=0.998)),
}
"""Network, seed and schedule, set down before a row was asked about."""


def trained(name: str, folder: Path) -> nn.Module:
    """The fresh judge ``name``, as it lies in ``folder`` or newly trained on public people whose hair is clear."""
    make, seed, schedule = RECIPES[name]
    torch.manual_seed(seed)
    network, path = make(), folder / f"{name}.safetensors"
    if path.exists():
        network.load_state_dict(load_file(path))
        return network.eval()
    people = public_identities()
    people = people[hair_clearness(people) >= CLEAR_HAIR]
    people = people[even_rows(hair_labels(people), PEOPLE)]
    rendered = rendered_pool(people, PICTURES, seed=100 * seed)
    pool = Pool(rendered.images, hair_labels(rendered.faces.identity))
    folder.mkdir(parents=True, exist_ok=True)
    fit(
        network,
        lambda generator: classification_loss(network, pool, BATCH, generator),
        schedule,
        seed=seed,
        checkpoint=path.with_suffix(".ck"),
    )
    save_file(network.state_dict(), path)
    return network


def clean_accuracy(network: nn.Module) -> float:
    """Share of pictures of unseen people with clear hair whose words the network finds."""
    people = unseen_crowd()
    pool = rendered_pool(people[hair_clearness(people) >= CLEAR_HAIR], 4, seed=7)
    return accuracy(network, pool.at(torch.arange(len(pool))), hair_labels(pool.faces.identity))


@torch.no_grad()
def judged_anew(folder: RunFolder, row: str, judges: dict[str, nn.Module]) -> list[PerturbationRecord]:
    """The records of a row with the votes of ``judges`` in place of their own."""
    records = [record for record in read_perturbation_records(folder.records) if record.row == row]
    clean, changed = (read_pictures(folder.images / part, len(records)).float() / 255 for part in ("clean", row))
    before = {name: judge(clean).argmax(1).tolist() for name, judge in judges.items()}
    after = {name: judge(changed).argmax(1).tolist() for name, judge in judges.items()}
    return [
        replace(
            record,
            clean_hits={name: before[name][record.image] == record.label for name in judges},
            predicted={name: after[name][record.image] for name in judges},
            fooled={name: after[name][record.image] != record.label for name in judges},
        )
        for record in records
    ]


def kept_only(records: Sequence[PerturbationRecord]) -> list[PerturbationRecord]:
    """The same with every picture that no longer deserves its label counted as a failure."""
    return [
        record if record.label_kept else replace(record, fooled=dict.fromkeys(record.fooled, False))
        for record in records
    ]


def share(records: Sequence[PerturbationRecord], judges: Sequence[str]) -> dict[str, float | None]:
    """Success on the pictures that ``judges`` had right, with its interval over pictures."""
    found = [(success, record.image) for record in records if (success := success_on_right(record, judges)) is not None]
    votes, images = zip(*found, strict=True)
    rate = vote_rate(votes, images, generator=np.random.default_rng(0))
    return {"value": rate.value, "low": rate.low, "high": rate.high, "n": len(found)}


def in_percent(measure: Mapping[str, Any]) -> str:
    """Value and interval."""
    return f"{100 * measure['value']:.1f} [{100 * measure['low']:.1f}, {100 * measure['high']:.1f}]"


def main() -> None:
    """Train what is not there, ask, print the table and write it down."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ablation", type=Path, help="the folder of `diffaudit ablate perturb-ablation`")
    parser.add_argument("--rows", nargs="+", default=["baseline+mean", "full"], help="the first is compared with")
    parser.add_argument("--models", type=Path, default=Path("runs/fresh-judges"), help="where the judges are kept")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    judges = {name: trained(name, arguments.models) for name in RECIPES}
    names = list(judges)
    found = {
        row: judged_anew(RunFolder(arguments.ablation / "runs" / row / "0"), "attack", judges) for row in arguments.rows
    }
    pixel = RunFolder(arguments.ablation / "runs" / arguments.rows[0] / "0")  # made once, beside the baseline
    others = {record.row for record in read_perturbation_records(pixel.records)} - {"attack"}
    found |= {row: judged_anew(pixel, row, judges) for row in sorted(others)}
    rows = {
        row: {"transfer": share(records, names), "transfer_kept": share(kept_only(records), names)}
        | {name: share(records, [name]) for name in names}
        for row, records in found.items()
    }
    base, *more = arguments.rows
    versus = {
        row: {
            "transfer": paired_success(found[row], found[base], names).to_json(),
            "transfer_kept": paired_success(kept_only(found[row]), kept_only(found[base]), names).to_json(),
        }
        for row in more
    }
    accuracies = {name: clean_accuracy(judge) for name, judge in judges.items()}
    RESULTS.write_text(
        json.dumps({"clean_accuracy": accuracies, "rows": rows, "versus": {base: versus}}, indent=1) + "\n"
    )
    print(", ".join(f"{name} has {100 * value:.1f} % of unseen pictures right" for name, value in accuracies.items()))
    columns = ["transfer", "transfer_kept", *names]
    cells = [[row, *(in_percent(measures[column]) for column in columns)] for row, measures in rows.items()]
    print(pipe_table(["", *columns], cells))
    for row, measures in versus.items():
        for name, found in measures.items():
            print(f"{row} on {base}, {name}: {in_percent(found)} points, p {found['p']:.2g}")


if __name__ == "__main__":
    main()
