"""Schemes: letters that stand for terms and weightings."""

import pytest

from diffaudit.settings import (
    FeatureTerm,
    InversionSettings,
    SettingsError,
    StagedWeights,
    TopKTerm,
    UncertaintyWeights,
    check_settings,
    dump_settings,
)
from diffaudit.settings.schemes import with_schemes


def kinds(settings: InversionSettings, group: str) -> list[str]:
    return [term.kind for term in getattr(settings.terms, group)]


def test_no_scheme_is_the_baseline() -> None:
    settings = check_settings({})
    assert kinds(settings, "cls") == ["top_k", "feature"]
    assert kinds(settings, "id") == ["identity"]
    assert kinds(settings, "perc") == ["perceptual"]
    assert settings.terms.prior[0].distance == "mse"
    assert isinstance(settings.weighting, StagedWeights)


def test_each_letter_changes_its_own_groups() -> None:
    base = check_settings({}).terms
    changed = {
        letter: [g for g in ("prior", "cls", "id", "perc", "reg") if getattr(terms, g) != getattr(base, g)]
        for letter in "ABC"
        for terms in [check_settings({"schemes": [letter]}).terms]
    }
    assert changed == {"A": ["prior"], "B": ["cls", "id"], "C": ["perc"]}
    assert isinstance(check_settings({"schemes": ["D"]}).weighting, UncertaintyWeights)


def test_learned_weights_take_bounded_margins() -> None:
    """The softplus: a sum that learns its weights has no minimum with a term that goes below 0."""
    for schemes in (["D"], ["B", "D"], ["A", "B", "C", "D"]):
        terms = check_settings({"schemes": schemes}).terms.cls
        assert [term.bounded for term in terms if isinstance(term, TopKTerm)] == [True]
    assert not any(term.bounded for term in check_settings({"schemes": ["B"]}).terms.cls if isinstance(term, TopKTerm))


def test_together_is_the_union_of_the_letters() -> None:
    terms = check_settings({"schemes": ["A", "B", "C"]}).terms
    for letter, groups in (("A", ["prior"]), ("B", ["cls", "id"]), ("C", ["perc"])):
        alone = check_settings({"schemes": [letter]}).terms
        assert all(getattr(terms, group) == getattr(alone, group) for group in groups)


def test_what_a_file_says_itself_stays() -> None:
    values = {"schemes": ["B", "D"], "terms": {"cls": [{"kind": "feature"}]}, "weighting": {"kind": "staged"}}
    settings = check_settings(values)
    assert settings.terms.cls == [FeatureTerm()]
    assert isinstance(settings.weighting, StagedWeights)
    assert kinds(settings, "id") == ["contrastive"]


def test_resolved_settings_resolve_to_themselves() -> None:
    import yaml

    settings = check_settings({"schemes": ["A", "B", "C", "D"]})
    assert check_settings(yaml.safe_load(dump_settings(settings))) == settings


def test_mappings_of_another_kind_are_not_mixed() -> None:
    mixed = with_schemes({"weighting": {"kind": "uncertainty", "delta": 0.1}}, ["D"])
    assert mixed["weighting"] == {"kind": "uncertainty", "delta": 0.1}
    assert with_schemes({"weighting": {"kind": "fixed"}}, ["D"])["weighting"] == {"kind": "fixed"}


@pytest.mark.parametrize(
    ("schemes", "fault"),
    [
        (["E"], r"`schemes\.0` should be 'A', 'B', 'C' or 'D'. Found 'E'."),
        (["A", "A"], r"`schemes` should name each scheme once"),
        ("A", r"`schemes` should be a list"),
    ],
)
def test_other_letters_are_refused(schemes: object, fault: str) -> None:
    with pytest.raises(SettingsError, match=fault):
        check_settings({"schemes": schemes})
