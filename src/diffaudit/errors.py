"""What goes wrong: each message has the name, the rule, the value found and, where it helps, a way out."""

from collections.abc import Sequence


class DiffauditError(Exception):
    """Base of every error that diffaudit raises on purpose. The command line prints it without a traceback."""


class InvalidSetting(DiffauditError, ValueError):
    """A value breaks its rule.

    >>> raise InvalidSetting("rank", "be a positive integer", -1, "Leave it out for the default, 16.")
    Traceback (most recent call last):
        ...
    diffaudit.errors.InvalidSetting: `rank` should be a positive integer. Found -1. Leave it out for the default, 16.
    """

    def __init__(self, name: str, rule: str, found: object, remedy: str = "") -> None:
        super().__init__(f"`{name}` should {rule}. Found {found!r}.{' ' + remedy if remedy else ''}")


class ThreatModelViolation(DiffauditError):
    """The attack would see something its threat model forbids, or a judge is not independent of the target."""


class RunConflict(DiffauditError):
    """The output folder holds a run made with other settings."""


class MissingExtra(DiffauditError, ImportError):
    """An optional package is needed and not installed.

    >>> raise MissingExtra("timm", "timm")
    Traceback (most recent call last):
        ...
    diffaudit.errors.MissingExtra: The package `timm` is not installed. Install it with: pip install "diffaudit[timm]"
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'The package `{package}` is not installed. Install it with: pip install "diffaudit[{extra}]"')


class NotFinite(DiffauditError, ArithmeticError):
    """A term, the value or a gradient is NaN or infinite; raised before the step, so that parameters stay as they were.

    Attributes:
        names: what is not finite.
        step: of the run; None where the place that found it does not know.

    >>> raise NotFinite(["id"], step=12)
    Traceback (most recent call last):
        ...
    diffaudit.errors.NotFinite: `id` should be finite. Found NaN or infinity at step 12. Lower the learning rate, or the
    weight of what is named.
    """

    def __init__(self, names: Sequence[str], step: int | None = None) -> None:
        place = "" if step is None else f" at step {step}"
        super().__init__(
            f"{', '.join(f'`{name}`' for name in names)} should be finite. Found NaN or infinity{place}. "
            "Lower the learning rate, or the weight of what is named."
        )
        self.names = tuple(names)
        self.step = step


class UnsafeArchive(DiffauditError):
    """A file would run code when it is opened."""
