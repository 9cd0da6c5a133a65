"""Makes the pictures of the README from the bundled models, a finished run of each audit, and measured files.

``python docs/make_pictures.py INVERSION PERTURBATION``, two run folders.
"""

import json
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from diffaudit.data.faces import photographs
from diffaudit.data.rendering import render_faces
from diffaudit.models.bundled import bundled_folder, load_network
from diffaudit.models.prior import DiffusionPrior
from diffaudit.records import RunFolder, read_perturbation_records, read_records
from diffaudit.report.ablation_figures import ablation_frontier
from diffaudit.report.ablation_layout import layout_of
from diffaudit.settings import Sampling
from diffaudit.training.populations import public_identities, unseen_identities
from diffaudit.training.prior import drawn_pictures

PICTURES = Path(__file__).with_name("pictures")
ABLATION = Path(__file__).parents[1] / "benchmarks" / "perturbation" / "ablation.json"


def save_grid(rows: list[Tensor], name: str, *, zoom: int = 1) -> None:
    """Rows of equally many images ``(n, 3, H, W)`` in [0, 1] as one PNG."""
    lines = [torch.cat(list(row), dim=2) for row in rows]
    grid = (torch.cat(lines, dim=1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous()
    picture = Image.fromarray(grid.numpy())
    PICTURES.mkdir(exist_ok=True)
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.LANCZOS).save(PICTURES / name)


@torch.no_grad()
def autoencoder(prior: DiffusionPrior) -> None:
    """Unseen people, each beside itself after the round trip."""
    images = render_faces(photographs(unseen_identities()[:30], 1, seed=9)[0])
    pairs = torch.stack([images, prior.decode(prior.encode(images))], dim=1).flatten(0, 1)
    save_grid(list(pairs.split(12)), "autoencoder.png")


@torch.no_grad()
def samples(prior: DiffusionPrior) -> None:
    """A row an unseen person: three photographs, then six samples under the person's mean embedding."""
    encoder, _ = load_network(bundled_folder("identity"))
    people = unseen_identities()[40:48]
    images = render_faces(photographs(people, 8, seed=9)[0])
    embeddings = nn.functional.normalize(encoder(images), dim=1).view(len(people), 8, -1).mean(1)
    sources = render_faces(photographs(public_identities()[: 6 * len(people)], 1, seed=10)[0])
    how = Sampling()
    drawn = drawn_pictures(
        prior,
        sources,
        nn.functional.normalize(embeddings, dim=1).repeat_interleave(6, dim=0),
        steps=how.steps,
        strength=how.strength,
        guidance_scale=how.guidance_scale,
        seed=1,
    )
    photos, drawings = images.view(len(people), 8, 3, 64, 64)[:, :3], (drawn.float() / 255).view(-1, 6, 3, 64, 64)
    save_grid([torch.cat(pair) for pair in zip(photos, drawings, strict=True)], "samples.png")


def reconstructions(run: RunFolder, count: int = 8) -> None:
    """The first ``count`` classes of a run: two private photographs, then four reconstructions, best first."""
    attack = [record for record in read_records(run.records) if record.row == "attack"]
    rows = []
    for label in sorted({record.label for record in attack})[:count]:
        references = sorted((run.images / "reference").glob(f"{label:04d}-*.png"))[:2]
        rebuilt = [run.path / record.image for record in attack if record.label == label][:4]
        rows.append(torch.stack([_opened(path) for path in [*references, *rebuilt]]))
    half = len(rows) // 2
    save_grid([torch.cat(pair) for pair in zip(rows[:half], rows[half : 2 * half], strict=True)], "reconstructions.png")


def perturbations(run: RunFolder, count: int = 12) -> None:
    """The first ``count`` pictures of a run: clean, perturbed, and ten times their difference around grey."""
    attack = [record for record in read_perturbation_records(run.records) if record.row == "attack"]
    shown = [(_opened(run.path / one.clean_picture), _opened(run.path / one.picture)) for one in attack[:count]]
    clean, changed = (torch.stack(side) for side in zip(*shown, strict=True))
    save_grid([clean, changed, 0.5 + 10 * (changed - clean)], "perturbations.png")


def frontier() -> None:
    """The published attack over the ensemble and ours, of forty and of sixty iterations, among attacks on pixels."""
    ablation = json.loads(ABLATION.read_text(encoding="utf-8"))
    shown = ("baseline+mean", "full", "full-longer")
    rows = [row for row in ablation["rows"] if row["reference"] or row["name"] in shown]
    figure = ablation_frontier(rows, layout_of(ablation).headline)
    assert figure is not None
    figure.savefig(PICTURES / "frontier.svg", facecolor="white", metadata={"Date": None})


def _opened(path: Path) -> Tensor:
    picture = Image.open(path).convert("RGB")
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(picture.height, picture.width, 3).permute(2, 0, 1) / 255


if __name__ == "__main__":
    bundled = DiffusionPrior.load(bundled_folder("prior"))
    autoencoder(bundled)
    samples(bundled)
    inversion, perturbation = (RunFolder(Path(path)) for path in sys.argv[1:])
    reconstructions(inversion)
    perturbations(perturbation)
    frontier()
