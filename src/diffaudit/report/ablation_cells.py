"""How an ablation's numbers are written: a measure with its interval, a difference with its corrected p-value."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from diffaudit.report.tables import Cell
from diffaudit.report.wording import MINUS, Measure

Json = Mapping[str, Any]


def is_seen(found: Json) -> bool:
    """Whether a difference is more than chance: p below 0.05 after correction, and one sign in every seed."""
    return bool(found["p_corrected"] < 0.05 and found["same_sign"])


def level(measure: Json | None, column: Measure) -> Cell:
    """A measure as its column has it; empty where there is none."""
    if measure is None:
        return Cell()
    form = partial(written, share=column.share, digits=column.digits)
    return Cell(form(measure["value"]), interval(measure, form))


def difference(found: Json | None, column: Measure) -> Cell:
    """A difference as its column has it, with its corrected p-value; empty where nothing was compared."""
    if found is None:
        return Cell()
    form = partial(written, share=column.share, digits=column.digits, sign="+")
    p = found["p_corrected"]
    differ = not found["same_sign"] and len(found["by_seed"]) > 1  # a single seed may have no sign, at no difference
    star = "*" if is_seen(found) else " (seeds differ)" if differ else ""
    return Cell(form(found["difference"]), f"{interval(found, form)} p {p_value(p)}{star}".strip())


def interval(measure: Json, form: Callable[[float], str]) -> str:
    """The ends of an interval; empty where there is none."""
    return "" if measure["low"] is None else f"[{form(measure['low'])}, {form(measure['high'])}]"


def written(value: float, *, share: bool, digits: int = 3, sign: str = "") -> str:
    """A share in percent, anything else with so many digits."""
    return signed(100 * value, f"{{:{sign}.1f}}") if share else signed(value, f"{{:{sign}.{digits}f}}")


def signed(value: float, form: str) -> str:
    """A number in a format, with a true minus and no sign where it is rounded to 0."""
    text = form.format(value)
    return text.replace("-", MINUS) if float(text) else text.lstrip("+-")


def p_value(p: float) -> str:
    """A p-value as it is printed.

    >>> p_value(0.0004), p_value(0.0312)
    ('<0.001', '0.031')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"
