"""The grid of a report: what each class looks like, what it was made from, what came out and what the judges said."""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from diffaudit.records import Record

SHOWN = 160
"""Longest side in the page, in pixels; larger pictures are shown reduced."""
REFERENCES = 2
"""Private photographs shown of each class."""


@dataclass(frozen=True)
class Picture:
    """An image as the page embeds it; ``uri`` is None where the file is missing."""

    uri: str | None
    alt: str


@dataclass(frozen=True)
class Vote:
    """A judge's word on one image, and the same spelt out."""

    hit: bool
    words: str


@dataclass(frozen=True)
class Reconstruction:
    """One image of the attack, its source, what optimising its pixels made of it, and the votes on the image."""

    number: int
    picture: Picture
    source: Picture | None
    finished: Picture | None
    votes: tuple[Vote, ...]
    target: Vote
    verdict: str

    @property
    def recognised(self) -> bool:
        """Whether every judge names the class sought."""
        return all(vote.hit for vote in self.votes)


@dataclass(frozen=True)
class ClassCard:
    """All of one class: private photographs, reconstructions, and the share of votes they won."""

    label: int
    references: tuple[Picture, ...]
    reconstructions: tuple[Reconstruction, ...]
    share: float

    @property
    def recognised(self) -> int:
        """Images that every judge recognises."""
        return sum(one.recognised for one in self.reconstructions)


@dataclass(frozen=True)
class ClassGroup:
    """Classes that fared alike, in order of label."""

    title: str
    cards: tuple[ClassCard, ...]


def class_groups(run: Path, records: Sequence[Record]) -> list[ClassGroup]:
    """Every class of row ``attack``, none left out, grouped by the share of judges' votes that its images won."""
    cards = class_cards(run, records)
    groups = (
        ("Recognised in most votes", [card for card in cards if card.share >= 0.5]),
        ("Recognised in some votes", [card for card in cards if 0 < card.share < 0.5]),
        ("Never recognised", [card for card in cards if card.share == 0]),
    )
    return [ClassGroup(title, tuple(found)) for title, found in groups if found]


def class_cards(run: Path, records: Sequence[Record]) -> list[ClassCard]:
    """A card for every class of row ``attack``, by label."""
    by_label: dict[int, list[Record]] = defaultdict(list)
    finished: dict[tuple[int, int], Record] = {}
    for record in records:
        if record.row == "attack":
            by_label[record.label].append(record)
        elif record.row == "attack-finished":
            finished[record.label, record.sample] = record
    return [_card(run, label, by_label[label], finished) for label in sorted(by_label)]


def picture(path: Path, alt: str, *, shown: int = SHOWN) -> Picture:
    """The file as a data URI: as it is if small, else reduced to ``shown`` pixels."""
    if not path.is_file():
        return Picture(None, f"{alt} (no file)")
    content = path.read_bytes()
    with Image.open(io.BytesIO(content)) as image:
        if max(image.size) > shown or image.format != "PNG":
            return embedded(image.convert("RGB"), alt, shown=shown)
    return Picture(_uri(content), alt)


def embedded(image: Image.Image, alt: str, *, shown: int = SHOWN) -> Picture:
    """An image in memory as a data URI, reduced to ``shown`` pixels."""
    reduced = image.copy()
    reduced.thumbnail((shown, shown), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    reduced.save(file, "PNG", optimize=True)
    return Picture(_uri(file.getvalue()), alt)


def _uri(content: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(content).decode()}"


def _card(run: Path, label: int, records: Sequence[Record], finished: Mapping[tuple[int, int], Record]) -> ClassCard:
    ordered = sorted(records, key=lambda record: record.sample)
    references = sorted((run / "images" / "reference").glob(f"{label:04d}-*.png"))[:REFERENCES]
    return ClassCard(
        label,
        tuple(picture(path, f"private photograph {k + 1} of person {label}") for k, path in enumerate(references)),
        tuple(_reconstruction(run, record, finished.get((label, record.sample))) for record in ordered),
        sum(record.judge_accuracy for record in ordered) / len(ordered),
    )


def _reconstruction(run: Path, record: Record, finished: Record | None) -> Reconstruction:
    votes = tuple(
        Vote(vote.hit, f"{name}: {'recognised' if vote.hit else f'takes it for person {vote.predicted}'}")
        for name, vote in record.judges.items()
    )
    hits = sum(vote.hit for vote in votes)
    verdict = "recognised" if hits == len(votes) else f"{hits} of {len(votes)}" if hits else "not recognised"
    return Reconstruction(
        record.sample,
        picture(run / record.image, f"reconstruction {record.sample + 1} of person {record.label}: {verdict}"),
        picture(run / record.source_image, f"public source of reconstruction {record.sample + 1}")
        if record.source_image
        else None,
        picture(run / finished.image, f"reconstruction {record.sample + 1} with optimised pixels: no reconstruction")
        if finished
        else None,
        votes,
        Vote(record.target_hit, f"target: {'satisfied' if record.target_hit else 'not satisfied'}"),
        verdict,
    )
