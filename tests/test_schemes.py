"""Schemes: letters that stand for terms and weightings."""

from collections import deque
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from diffaudit.configurations import settings_path
from diffaudit.settings import (
    FeatureTerm,
    FixedWeights,
    InversionSettings,
    NoiseTerm,
    SettingsError,
    StagedWeights,
    Terms,
    TopKTerm,
    UncertaintyWeights,
    check_settings,
    dump_settings,
    load_settings,
)
from diffaudit.settings.schemes import LEAD, with_schemes


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


SPELLED = {"pose": 0.3, "expression": 0.3, "illumination": 0.2}
"""What a file writes out where the letter leaves the weights of attributes to the estimator."""


@pytest.mark.parametrize(
    ("name", "letters"),
    [
        ("two_stage", ""),
        ("warmup", ""),
        ("protect_release", ""),
        ("uncertainty", "D"),
        ("fast", "B"),
        ("balanced", "BC"),
        ("automatic", "BD"),
        ("complete", "ABCD"),
    ],
)
def test_a_file_writes_out_what_its_letters_stand_for(name: str, letters: str) -> None:
    written, lettered = load_settings(settings_path(name)), check_settings({"schemes": list(letters)})
    terms = lettered.terms.model_dump()
    for term in terms["perc"]:
        if term["kind"] == "attributes":
            term["weights"] = SPELLED
    assert written.terms.model_dump() == terms
    assert written.weighting == lettered.weighting


def said(settings: InversionSettings, group: str) -> list[dict[str, Any]]:
    """The group's terms as mappings, without a scale: none has one."""
    terms = [term.model_dump() for term in getattr(settings.terms, group)]
    assert {term.pop("scale") for term in terms} == {"none"}
    return terms


def test_numbers_of_the_baseline_are_the_methods() -> None:
    settings = check_settings({"weighting": {"kind": "fixed"}})
    assert settings.weighting == FixedWeights(weights={"prior": 1.2, "cls": 1.0, "id": 0.8, "perc": 0.5, "reg": 0.2})
    assert said(settings, "prior") == [{"kind": "noise", "distance": "mse", "schedule": "constant", "factor": 1.0}]
    top_k = {"kind": "top_k", "k": 1, "k_min": 2, "bounded": False, "margin": 0.0, "factor": 1.0}
    assert said(settings, "cls") == [top_k, {"kind": "feature", "centres": "pseudo", "factor": 0.5}]
    assert said(settings, "id") == [{"kind": "identity", "factor": 1.0}]
    assert said(settings, "perc") == [{"kind": "perceptual", "form": "plain", "factor": 1.0}]


def test_numbers_of_the_letters_are_the_methods() -> None:
    settings = check_settings({"schemes": ["A", "B", "C"]})
    assert said(settings, "prior") == [{"kind": "noise", "distance": "cosine", "schedule": "cosine", "factor": 1.0}]
    assert said(settings, "cls") == [
        {"kind": "top_k", "k": None, "k_min": 2, "bounded": False, "margin": 0.0, "factor": 1.0},
        {"kind": "feature", "centres": "learned", "factor": 0.5},
        {"kind": "logit_margin", "margin": 1.0, "factor": 0.3},
    ]
    assert said(settings, "id") == [
        {"kind": "contrastive", "form": "smooth", "margin": 0.4, "sharpness": 64.0, "factor": 1.0}
    ]
    assert said(settings, "perc") == [
        {"kind": "attributes", "distance": "l1", "weights": None, "factor": 0.6},
        {"kind": "perceptual", "form": "hierarchical", "factor": 0.4},
        {"kind": "diversity", "factor": 0.1},
    ]
    assert settings.terms.bank.model_dump() == {"capacity": 4096, "per_image": 64, "interval": 50}
    assert settings.terms.identity_anchor == "learned"


def test_learned_weights_take_bounded_margins() -> None:
    """The softplus: a sum that learns its weights has no minimum with a term that goes below 0."""
    for schemes in (["D"], ["B", "D"], ["A", "B", "C", "D"]):
        terms = check_settings({"schemes": schemes}).terms.cls
        assert [(term.bounded, term.margin) for term in terms if isinstance(term, TopKTerm)] == [(True, LEAD)]
    assert not any(term.bounded for term in check_settings({"schemes": ["B"]}).terms.cls if isinstance(term, TopKTerm))


def test_together_is_the_union_of_the_letters() -> None:
    terms = check_settings({"schemes": ["A", "B", "C"]}).terms
    for letter, groups in (("A", ["prior"]), ("B", ["cls", "id"]), ("C", ["perc"])):
        alone = check_settings({"schemes": [letter]}).terms
        assert all(getattr(terms, group) == getattr(alone, group) for group in groups)


def test_what_a_file_says_itself_stays() -> None:
    settings = check_settings({"schemes": ["B", "D"], "terms": {"cls": [{"kind": "feature"}]}})
    assert settings.terms.cls == [FeatureTerm()]
    assert isinstance(settings.weighting, UncertaintyWeights)
    assert kinds(settings, "id") == ["contrastive"]
    settings = check_settings({"schemes": ["D"], "weighting": {"kind": "staged"}})
    assert isinstance(settings.weighting, StagedWeights)
    assert isinstance(settings.terms.cls[0], TopKTerm)
    assert settings.terms.cls[0].bounded


@pytest.mark.parametrize(
    "values",
    [
        *({"schemes": list(letters)} for letters in ("A", "B", "C", "D", "BD", "DB", "ABCD")),
        {"schemes": ["B", "D"], "terms": {"id": []}},
        {"schemes": ["D"], "weighting": {"kind": "uncertainty", "delta": 0.1}},
    ],
)
def test_resolved_settings_resolve_to_themselves(values: dict[str, Any]) -> None:
    settings = check_settings(values)
    assert check_settings(yaml.safe_load(dump_settings(settings))) == settings


BASELINE = {"cls": [{"kind": "top_k"}, {"kind": "feature"}], "id": [{"kind": "identity"}]}


def test_schemes_in_vain_are_refused_with_all_the_keys_that_override_them() -> None:
    """A file that names the groups itself, such as ``configs/orl.yaml``, would silently be the baseline."""
    values = {"schemes": ["A", "B", "D"], "terms": BASELINE, "weighting": {"kind": "staged"}}
    with pytest.raises(SettingsError) as refused:
        check_settings(values)
    assert refused.value.faults == [
        "`schemes` should name none that the settings override whole. Found B, overridden by terms.cls, terms.id; "
        "D, overridden by terms.cls, weighting. Leave out the letter, or one of its keys."
    ]


def test_a_scheme_on_top_of_resolved_settings_without_it_is_refused() -> None:
    resolved = yaml.safe_load(dump_settings(check_settings({})))
    for letter in "ABCD":
        with pytest.raises(SettingsError, match=f"Found {letter}, overridden"):
            check_settings({**resolved, "schemes": [letter]})


def test_what_equals_the_scheme_does_not_override_it() -> None:
    given = {"prior": [{"schedule": "cosine", "kind": "noise", "distance": "cosine", "factor": 1.0}]}
    assert check_settings({"schemes": ["A"], "terms": given}) == check_settings({"schemes": ["A"]})


def weighing(*stages: dict[str, float], steps: int = 1) -> list[dict[str, Any]]:
    more = {"trains": ["embedding"], "rate": 0.1, "steps": steps}
    return [{"name": f"stage {number}", "weights": weights, **more} for number, weights in enumerate(stages)]


def test_schemes_of_groups_that_weigh_nothing_are_refused_with_these_groups() -> None:
    """No term of them would be built: the run would silently be the one without the letters."""
    stages = weighing({"prior": 0.0, "cls": 0.3, "id": 1.0}, {"id": 1.0})
    with pytest.raises(SettingsError) as refused:
        check_settings({"schemes": ["A", "B", "C"], "stages": stages})
    assert refused.value.faults == [
        "`schemes` should name none whose groups all have the weight 0 in every stage, where it changes nothing. Found "
        "A, with prior; C, with perc. Give them a weight, or leave out the letter."
    ]
    fixed = {"kind": "fixed", "weights": {"prior": 1.0, "cls": 1.0, "id": 1.0}}
    with pytest.raises(SettingsError, match="Found C, with perc"):
        check_settings({"schemes": ["A", "B", "C"], "weighting": fixed})
    with pytest.raises(SettingsError, match="Found A, with prior"):
        check_settings({"schemes": ["A", "D"], "weighting": {"kind": "uncertainty", "fixed": {"prior": 0.0}}})


def test_schemes_of_which_something_weighs_are_heard() -> None:
    """One group of two, one stage of two, a weight that is learned; where no step is taken, nothing is asked."""
    for schemes, stages in (
        (["B"], weighing({"id": 1.0})),
        (["A"], weighing({"id": 1.0}, {"prior": 0.1})),
        (["C", "D"], weighing({})),
        (["A"], weighing({"id": 1.0}, steps=0)),
    ):
        assert check_settings({"schemes": schemes, "stages": stages}).schemes == schemes


def test_a_scheme_is_in_vain_if_what_is_not_overridden_weighs_nothing() -> None:
    values = {"schemes": ["B"], "stages": weighing({"cls": 1.0}), "terms": {"cls": [{"kind": "top_k"}]}}
    with pytest.raises(SettingsError, match="Found B, with id"):
        check_settings(values)
    with pytest.raises(SettingsError, match="Found A, with prior"):
        check_settings(
            {"schemes": ["A"], "stages": [*weighing({"prior": 1.0}, steps=0), *weighing({}, {"id": 1.0})[1:]]}
        )


def sequences(*letters: str) -> list[Any]:
    return [letters, set(letters), dict.fromkeys(letters).keys(), iter(letters), deque(letters)]


@pytest.mark.parametrize("schemes", sequences("A", "B"))
def test_any_collection_of_letters_is_heard(schemes: Any) -> None:
    found = InversionSettings(schemes=schemes)
    assert found.terms == check_settings({"schemes": ["A", "B"]}).terms


@pytest.mark.parametrize("schemes", sequences("A", "E"))
def test_any_collection_of_other_letters_is_refused(schemes: Any) -> None:
    with pytest.raises(ValidationError, match="'A', 'B', 'C' or 'D'"):
        InversionSettings(schemes=schemes)


def test_sections_as_objects_say_what_they_were_made_with() -> None:
    settings = InversionSettings(
        schemes=["B", "D"], terms=Terms(cls=[FeatureTerm()]), weighting=UncertaintyWeights(delta=0.1)
    )
    assert settings.terms.cls == [FeatureTerm()]
    assert kinds(settings, "id") == ["contrastive"]
    assert settings.weighting == UncertaintyWeights(delta=0.1, rate=0.1)
    assert InversionSettings(schemes=["B"], terms=Terms()) == InversionSettings(schemes=["B"])
    with pytest.raises(ValidationError, match=r"Found A, overridden by terms\.prior\."):
        InversionSettings(schemes=["A"], terms=Terms(prior=[NoiseTerm()]))
    with pytest.raises(ValidationError, match=r"Found D, overridden by terms\.cls, weighting\."):
        InversionSettings(schemes=["D"], terms=Terms(cls=[FeatureTerm()]), weighting=StagedWeights())


def test_mappings_of_another_kind_are_not_mixed() -> None:
    mixed = with_schemes({"weighting": {"kind": "uncertainty", "delta": 0.1}}, ["D"])
    assert mixed["weighting"] == {"kind": "uncertainty", "delta": 0.1, "rate": 0.1}
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
