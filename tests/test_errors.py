"""Messages have one shape: name, rule, value found, way out."""

import pytest

from diffaudit import errors
from diffaudit.errors import DiffauditError, InvalidSetting, MissingExtra
from diffaudit.settings import SettingsError


def test_an_invalid_setting_says_name_rule_value_and_way_out() -> None:
    assert str(InvalidSetting("rank", "be positive", -1)) == "`rank` should be positive. Found -1."
    assert (
        str(InvalidSetting("name", "be known", "x'y", "Try `a`."))
        == """`name` should be known. Found "x'y". Try `a`."""
    )


def test_a_missing_extra_says_what_to_type() -> None:
    assert str(MissingExtra("scikit-learn", "datasets")) == (
        'The package `scikit-learn` is not installed. Install it with: pip install "diffaudit[datasets]"'
    )


@pytest.mark.parametrize(
    "error",
    [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)]
    + [SettingsError],
)
def test_every_error_of_ours_is_caught_as_one(error: type[Exception]) -> None:
    assert issubclass(error, DiffauditError)


def test_errors_are_also_what_python_calls_them() -> None:
    assert issubclass(InvalidSetting, ValueError)
    assert issubclass(SettingsError, ValueError)
    assert issubclass(MissingExtra, ImportError)
