"""What the rows of an ablation did, in words: which is highest, which gained on their baseline, which lost.

Of perturbations also where a row lies among the attacks on pixels that went no farther from the clean picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.report.ablation_cells import difference, is_seen, level, written
from diffaudit.report.ablation_layout import Layout, layout_of, title
from diffaudit.report.equal_distance import Rival, first_beyond, rivals_within
from diffaudit.report.verdict import overlap

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Rows of which the same was found: what, and each row with its number and interval."""

    what: str
    rows: tuple[str, ...]


def ablation_verdict(ablation: Json) -> list[Finding]:
    """The findings in the headline measure, largest difference first; those that no row shares are left out.

    A difference is seen where the corrected p-value is below 0.05 and the sign is the same in every seed.
    """
    layout = layout_of(ablation)
    key = layout.headline.key
    rows = [row for row in ablation["rows"] if row["metrics"].get(key)]
    compared = [row for row in rows if row["versus_baseline"].get(key)]
    compared.sort(key=lambda row: -row["versus_baseline"][key]["difference"])
    seen = [row for row in compared if is_seen(row["versus_baseline"][key])]
    found = [
        Finding(f"Highest {layout.headline.title.lower()}, in percent", tuple(_highest(rows, layout))),
        Finding(f"Above {layout.baseline}, in points", _gains(seen, layout, 1)),
        Finding("Below it", _gains(seen, layout, -1)),
        Finding("No difference seen", _gains([row for row in compared if row not in seen], layout)),
        *_among_references(rows, layout),
    ]
    return [finding for finding in found if finding.rows]


def _highest(rows: Sequence[Json], layout: Layout) -> Iterator[str]:
    """The best row that is no reference, and the reference rows to read it against."""
    best = max(
        (row for row in rows if not row["reference"]),
        key=lambda row: float(row["metrics"][layout.headline.key]["value"]),
        default=None,
    )
    references = [row for row in rows if row["reference"] and row["name"] in layout.lines]
    for row in [best, *references] if best is not None else []:
        yield f"{title(row)} {level(row['metrics'][layout.headline.key], layout.headline)}"


def _gains(rows: Sequence[Json], layout: Layout, sign: int = 0) -> tuple[str, ...]:
    """Rows with their differences; with a ``sign``, only those of that sign."""
    return tuple(
        f"{title(row)} {difference(gain, layout.headline)}{_price(row, layout)}"
        for row in rows
        if (gain := row["versus_baseline"][layout.headline.key])["difference"] * sign > 0 or sign == 0
    )


def _among_references(rows: Sequence[Json], layout: Layout) -> list[Finding]:
    """Each row against the strongest of the attacks on pixels at no larger a price, read between their budgets."""
    if layout.price is None:
        return []
    attacks = {row["name"]: row["metrics"] for row in rows if row["reference"] and row["name"] != REBUILT}
    at = f"no larger a {layout.price.title.lower()}"
    places: dict[str, list[str]] = {place: [] for place in ("clear", "overlapping", "unknown", "reached")}
    for row in (row for row in rows if not row["reference"] and row["metrics"].get(layout.price.key)):
        cost = row["metrics"][layout.price.key]["value"]
        near = rivals_within(cost, attacks, layout.headline.key, from_nothing=False)
        far = first_beyond(cost, attacks, layout.headline.key)
        if near or far:
            place, rival = _place(row["metrics"][layout.headline.key], near, far)
            places[place].append(_beside(row, rival, layout))
    headings = {
        "clear": f"Above every attack on pixels at {at}",
        "overlapping": f"Above every attack on pixels at {at}, but intervals overlap",
        "unknown": "Below an attack on pixels that was run farther away alone",
        "reached": f"Reached by an attack on pixels at {at}",
    }
    return [Finding(f"{headings[place]}, in percent", tuple(lines)) for place, lines in places.items()]


def _place(mine: Json, near: list[Rival], far: list[Rival]) -> tuple[str, Rival]:
    """Where a success lies among rivals, and the strongest of those that decide it.

    ``far`` are the first budgets of methods that were run farther away alone: here they may do less, how much less is
    not known.
    """
    within, strongest = max(near, key=_success, default=None), max(near + far, key=_success)
    if within and mine["value"] <= _success(within):
        return "reached", within
    if mine["value"] <= _success(strongest):
        return "unknown", strongest
    return "overlapping" if any(overlap(mine, rival.success) for rival in near + far) else "clear", strongest


def _success(rival: Rival) -> float:
    return float(rival.success["value"])


def _beside(row: Json, rival: Rival, layout: Layout) -> str:
    share, digits = layout.headline.share, layout.headline.digits
    mine = written(row["metrics"][layout.headline.key]["value"], share=share, digits=digits)
    return f"{title(row)} {mine}, {rival.title} {written(rival.success['value'], share=share, digits=digits)}"


def _price(row: Json, layout: Layout) -> str:
    """How much farther from the clean picture a row goes, where that is the price of its gain."""
    paid = layout.price and row["versus_baseline"].get(layout.price.key)
    if not layout.price or not paid:
        return ""
    more = written(paid["difference"], share=layout.price.share, digits=layout.price.digits, sign="+")
    return f", {layout.price.title.lower()} {more}"
