"""The rows as sets, in a table: measures of ``distribution`` in ``metrics.json``, against the photographs."""

from collections.abc import Mapping
from typing import Any

from diffaudit.report.tables import Table, table_line
from diffaudit.report.wording import FRECHET_DISTANCE, ROWS, Measure, Row, found

Json = Mapping[str, Any]

SET_MEASURES = (
    Measure(
        "kernel_distance",
        "Kernel distance",
        "apart",
        False,
        "squared distance between the two sets under the cubic kernel, every person weighing the same (KID with "
        "another network, without its random subsets); an estimate without bias, so it may come out below 0",
    ),
    FRECHET_DISTANCE,
    Measure(
        "precision",
        "Precision",
        "real",
        True,
        "share of the images that lie nearer to some photograph than its third neighbour among the photographs",
    ),
    Measure(
        "recall",
        "Recall",
        "reached",
        True,
        "share of the photographs that lie nearer to some image than its third neighbour among the images",
    ),
    Measure(
        "density",
        "Density",
        "crowded",
        False,
        "mean number of photographs in whose neighbourhood of five an image lies, over five",
    ),
    Measure(
        "coverage", "Coverage", "reached", True, "share of the photographs with an image in their neighbourhood of five"
    ),
)
"""The columns, and their lines of the glossary."""

_PUBLIC = Row("public", "Public photographs of other people", "what knowing nothing reaches")


def distribution_table(metrics: Json) -> Table | None:
    """The measures by row; None where the run has none, and without the columns that no row has."""
    distribution = metrics.get("distribution") or {}
    rows = [(row, distribution.get("rows", {}).get(row.key)) for row in (*ROWS, _PUBLIC)]
    measured = [(row, measures) for row, measures in rows if measures]
    columns = [column for column in SET_MEASURES if any(found(measures, column.key) for _, measures in measured)]
    if not columns:
        return None
    people = distribution["classes"]
    lines = [
        table_line(row, {**measures, "samples": measures["n"], "classes": None if row is _PUBLIC else people}, columns)
        for row, measures in measured
    ]
    sizes = sorted({measures["n"] for _, measures in measured})
    caption = (
        f"{' or '.join(map(str, sizes))} images a row against {distribution['references']} held-out photographs of the "
        f"people attacked, in one space: {distribution['space']}. Compare with no published FID or KID, nor with a run "
        "on other people. Shares in percent. Who is who is not asked, and a set spread wide, as strangers are, has a "
        "high recall for that alone: read it beside the precision. Interval of the kernel distance: 95 % bootstrap "
        "clustered by class. The others have none, because a resampled set holds images twice, and those are their own "
        "neighbours."
    )
    return Table("distribution", caption, tuple(columns), tuple(lines))
