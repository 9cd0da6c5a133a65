"""The cards of a perturbation's report: each picture before and after, what changed, and the votes of every model."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from diffaudit.records import PerturbationRecord, RunFolder
from diffaudit.report.perturbation_wording import attack_title
from diffaudit.report.pictures import Picture, Vote, embedded, picture
from diffaudit.study.perturbation_metrics import models_of, success_on_right

GAIN = 10
"""Differences are shown so many times as large."""
SMALL = 80
"""Longest side of a reference attack's picture in the page, in pixels."""


@dataclass(frozen=True)
class Tile:
    """A picture with a line or two under it; ``fools`` frames what fools every held-out model that was right."""

    picture: Picture
    caption: str
    note: str = ""
    fools: bool = False


@dataclass(frozen=True)
class ModelVote:
    """What a model says of a picture before and after: both as marks, and how that is counted."""

    model: str
    role: str
    before: Vote
    after: Vote
    predicted: str
    outcome: str


@dataclass(frozen=True)
class AttackCard:
    """One picture: before and after, the same under every reference attack, and the votes.

    ``share`` is that of the held-out models fooled among those right before; None where none was. Classes are in words
    where the run knows them.
    """

    number: int
    name: str
    label: str
    goal: str | None
    summary: str
    tiles: tuple[Tile, ...]
    references: tuple[Tile, ...]
    votes: tuple[ModelVote, ...]
    share: float | None


@dataclass(frozen=True)
class AttackGroup:
    """Pictures that fared alike, in order of number."""

    title: str
    cards: tuple[AttackCard, ...]


def attack_groups(
    run: Path,
    records: Sequence[PerturbationRecord],
    models: Mapping[str, str],
    classes: Mapping[str, str] | None = None,
) -> list[AttackGroup]:
    """Every picture of row ``attack``, none left out, grouped by the share of the held-out models that it fools.

    ``classes`` are words by class number, as the manifest holds them; one without a word is called by its number.
    """

    def word(number: int) -> str:
        return (classes or {}).get(str(number), f"class {number}")

    others: dict[int, list[PerturbationRecord]] = defaultdict(list)
    for record in records:
        if record.row != "attack":
            others[record.image].append(record)
    attack = sorted((record for record in records if record.row == "attack"), key=lambda record: record.image)
    cards = [_card(run, record, others[record.image], models, word) for record in attack]
    absent = "right before" if models_of(models, "heldout") else "asked"
    groups = (
        ("Fools every held-out model that was right", [card for card in cards if card.share == 1]),
        ("Fools some held-out models", [card for card in cards if card.share is not None and 0 < card.share < 1]),
        ("Fools no held-out model", [card for card in cards if card.share == 0]),
        (f"No held-out model was {absent}", [card for card in cards if card.share is None]),
    )
    return [AttackGroup(title, tuple(found)) for title, found in groups if found]


def difference(clean: Path, changed: Path, alt: str, *, gain: int = GAIN) -> Picture:
    """The change from one file to the other, ``gain`` times as large around mid-grey, where nothing changed.

    A file that is missing, or of another size, leaves a gap.
    """
    if not (clean.is_file() and changed.is_file()):
        return Picture(None, f"{alt} (no file)")
    before, after = (_pixels(path) for path in (clean, changed))
    if before.shape != after.shape:
        return Picture(None, f"{alt} (sizes differ)")
    return embedded(Image.fromarray(np.clip(128 + gain * (after - before), 0, 255).astype(np.uint8)), alt)


def _pixels(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), dtype=np.int64)


def _card(
    run: Path,
    record: PerturbationRecord,
    others: Sequence[PerturbationRecord],
    models: Mapping[str, str],
    word: Callable[[int], str],
) -> AttackCard:
    heldout = models_of(models, "heldout")
    clean, changed, name = run / record.clean_picture, run / record.picture, record.name
    tiles = [
        Tile(picture(clean, f"{name}, clean"), "clean"),
        Tile(
            picture(changed, f"{name}, adversarial: {_summary(record, heldout)}"),
            "adversarial",
            fools=_fools(record, heldout),
        ),
        Tile(
            difference(clean, changed, f"{name}, difference times {GAIN}"), f"difference \N{MULTIPLICATION SIGN}{GAIN}"
        ),
    ]
    attention = {when: RunFolder(run).attention(record.image, when) for when in ("before", "after")}
    tiles += [
        Tile(picture(path, f"{name}, attention of the label {when} the attack"), f"attention {when}")
        for when, path in attention.items()
        if path.is_file()
    ]
    return AttackCard(
        number=record.image,
        name=name,
        label=word(record.label),
        goal=None if record.goal is None else word(record.goal),
        summary=_summary(record, heldout),
        tiles=tuple(tiles),
        references=tuple(
            Tile(
                picture(
                    run / other.picture, f"{name}, {attack_title(other.row)}: {_summary(other, heldout)}", shown=SMALL
                ),
                attack_title(other.row),
                _fooled(other, heldout) if any(other.clean_hits[name] for name in heldout) else "",
                fools=_fools(other, heldout),
            )
            for other in others
        ),
        votes=tuple(_vote(record, model, role, word) for model, role in models.items()),
        share=success_on_right(record, heldout),
    )


def _vote(record: PerturbationRecord, model: str, role: str, word: Callable[[int], str]) -> ModelVote:
    was_right, predicted = record.clean_hits[model], record.predicted[model]
    kept = predicted == record.label
    if not was_right:
        outcome = "was wrong before"
    elif record.fooled[model]:
        outcome = "fooled"
    else:
        outcome = "holds" if kept else "wrong, but not the class sought"
    return ModelVote(
        model=model,
        role=role,
        before=Vote(was_right, f"{model} before: {'right' if was_right else 'wrong'}"),
        after=Vote(kept, f"{model} after: {'right' if kept else f'takes it for {word(predicted)}'}"),
        predicted=word(predicted),
        outcome=outcome,
    )


def _summary(record: PerturbationRecord, heldout: Sequence[str]) -> str:
    right = sum(record.clean_hits[name] for name in heldout)
    changed = "; deserves another label now" if record.label_kept is False else ""
    if not right:
        return f"no held-out model was {'right before' if heldout else 'asked'}{changed}"
    return f"fools {_fooled(record, heldout)} held-out {'model' if right == 1 else 'models'}{changed}"


def _fooled(record: PerturbationRecord, heldout: Sequence[str]) -> str:
    """How many of the held-out models that were right before: ``2 of 3``."""
    right = [name for name in heldout if record.clean_hits[name]]
    return f"{sum(record.fooled[name] for name in right)} of {len(right)}"


def _fools(record: PerturbationRecord, heldout: Sequence[str]) -> bool:
    return success_on_right(record, heldout) == 1
