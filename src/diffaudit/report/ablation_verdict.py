"""What the rows of an ablation did, in words: which is highest, which gained on their baseline, which lost.

Of perturbations also where a row lies among the attacks on pixels that went no farther from the clean picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.report.ablation_cells import difference, is_seen, level, written
from diffaudit.report.ablation_layout import Layout, layout_of, title
from diffaudit.report.equal_distance import Rival, rivals_within
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
    """Each row against the best of the attacks on pixels at no larger a price, read between their budgets."""
    if layout.price is None:
        return []
    attacks = {row["name"]: row["metrics"] for row in rows if row["reference"] and row["name"] != REBUILT}
    where = f"every attack on pixels at no larger a {layout.price.title.lower()}"
    above, overlapping, below = f"Above {where}", f"Above {where}, but intervals overlap", f"Not above {where}"
    places: dict[str, list[str]] = {above: [], overlapping: [], below: []}
    for row in rows:
        cost = row["metrics"].get(layout.price.key)
        rivals = rivals_within(cost["value"], attacks, layout.headline.key) if cost else []
        if row["reference"] or not rivals:
            continue
        mine, best = row["metrics"][layout.headline.key], max(rivals, key=lambda rival: float(rival.success["value"]))
        meets = any(overlap(mine, rival.success) for rival in rivals)
        place = below if mine["value"] <= best.success["value"] else overlapping if meets else above
        places[place].append(_beside(row, best, layout))
    return [Finding(f"{place}, in percent", tuple(lines)) for place, lines in places.items()]


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
