from typing import Any

import pytest

from diffaudit.study.claims import CLAIMS, Claim, judged_claims, verdict


@pytest.mark.parametrize(
    ("low", "high", "claimed", "word", "why"),
    [
        (0.01, 0.06, (0.03, 0.05), "seen", ""),
        (0.06, 0.09, (0.03, 0.05), "seen", "larger"),
        (0.01, 0.02, (0.03, 0.05), "not seen", "smaller than claimed"),
        (-0.01, 0.02, (0.03, 0.05), "not seen", "no effect as large"),
        (0.0, 0.0, (0.03, 0.05), "not seen", "no effect as large"),
        (-0.01, 0.04, (0.03, 0.05), "undecided", "holds both"),
        (-0.06, -0.01, (0.03, 0.05), "opposite", "other sign"),
        (-0.03, -0.005, (-0.02, -0.01), "seen", ""),  # a claimed cost
        (0.005, 0.02, (-0.02, -0.01), "opposite", "other sign"),
        (-0.03, 0.01, (-0.02, -0.01), "undecided", "holds both"),
        (-0.02, 0.03, (-0.05, 0.05), "seen", ""),  # a claim of no effect
        (0.06, 0.1, (-0.05, 0.05), "not seen", "outside"),
        (0.02, 0.1, (-0.05, 0.05), "undecided", "partly"),
        (None, None, (0.03, 0.05), "undecided", "no interval"),
    ],
)
def test_verdicts(low: float | None, high: float | None, claimed: tuple[float, float], word: str, why: str) -> None:
    found, words = verdict(low, high, claimed)
    assert found == word
    assert why in words


def test_seeds_that_differ_decide_nothing() -> None:
    assert verdict(0.01, 0.06, (0.03, 0.05), same_sign=False) == ("undecided", "the seeds differ in sign")


@pytest.mark.parametrize(
    ("low", "high", "word", "why"),
    [
        (0.01, 0.06, "undecided", "chance after correction"),
        (0.01, 0.02, "not seen", "no effect as large"),
        (-0.06, -0.01, "not seen", "no effect as large"),
    ],
)
def test_what_may_be_chance_after_correction_is_no_effect(low: float, high: float, word: str, why: str) -> None:
    found, words = verdict(low, high, (0.03, 0.05), p_corrected=0.05)
    assert found == word
    assert why in words
    assert verdict(low, high, (0.03, 0.05), p_corrected=0.04) == verdict(low, high, (0.03, 0.05))


def row(
    name: str, *, baseline: bool = False, variation: list[dict[str, float]] | None = None, **versus: Any
) -> dict[str, Any]:
    return {
        "name": name,
        "mode": "rollout",
        "baseline": baseline,
        "seeds": [0, 1],
        "metrics": {"overfit_gap": {"value": 0.01, "low": -0.02, "high": 0.04}},
        "stability": {"by_run": variation} if variation else {},
        "versus_baseline": versus,
    }


def test_each_kind_of_claim_finds_its_measure() -> None:
    gain = {"difference": 0.04, "low": 0.02, "high": 0.06, "same_sign": True, "p_corrected": 0.01, "relative": None}
    varied = {**gain, "relative": {"value": -0.2, "low": -0.3, "high": -0.1}}
    rows = [
        row(
            "baseline",
            baseline=True,
            variation=[{"cls": 0.2, "id": 0.1, "reg": 0.5}, {"cls": 0.4, "id": 0.1, "reg": 0.5}],
        ),
        row("B", judge_accuracy=gain),
        row("C", diversity=varied),
        row(
            "D",
            variation=[{"cls": 0.1, "id": 0.1, "div": 9.0, "reg": 0.1}, {"cls": 0.24, "id": 0.1, "reg": 0.1}],
            judge_accuracy=gain,
        ),
    ]
    found = {(claim["row"], claim["metric"]): claim for claim in judged_claims(rows)}
    assert found["B", "judge_accuracy"]["verdict"] == "seen"
    assert found["B", "overfit_gap"]["verdict"] == "seen"
    assert found["C", "diversity"]["verdict"] == "opposite"
    steadier = found["D", "variation"]
    # Changes of the three terms that both have: -1/2, 0 and -4/5 in one seed, -2/5, 0 and -4/5 in the other.
    ends = {"value": -0.45, "low": -0.5, "high": -0.4}
    assert steadier["measured"] == pytest.approx(ends | {"same_sign": True, "p_corrected": None})
    assert (steadier["verdict"], steadier["why"]) == ("seen", "larger than claimed")
    assert (found["A", "judge_accuracy"]["verdict"], found["A", "judge_accuracy"]["why"]) == (None, "not measured")


def test_one_seed_has_no_interval_and_decides_nothing() -> None:
    rows = [row("baseline", baseline=True, variation=[{"cls": 0.2}]), row("D", variation=[{"cls": 0.1}])]
    rows = [one | {"seeds": [0]} for one in rows]
    (steadier,) = [claim for claim in judged_claims(rows) if claim["metric"] == "variation"]
    assert (steadier["measured"]["value"], steadier["measured"]["low"]) == (-0.5, None)
    assert (steadier["verdict"], steadier["why"]) == ("undecided", "there is no interval")


def test_a_claim_is_judged_in_every_mode_that_has_its_row() -> None:
    gain = {"difference": 0.04, "low": 0.02, "high": 0.06, "same_sign": True, "p_corrected": 0.01, "relative": None}
    rows = [row("B", judge_accuracy=gain), row("B", judge_accuracy=gain) | {"mode": "one_step"}]
    claim = Claim(row="B", says="", metric="judge_accuracy", of="difference", low=0.03, high=0.05)
    assert [found["mode"] for found in judged_claims(rows, [claim])] == ["rollout", "one_step"]


def test_every_claim_of_the_method_is_there() -> None:
    """Points of success are hundredths of the judges' accuracy; that two agree is read as within 5 points."""
    assert [(claim.row, claim.metric, claim.of, claim.low, claim.high) for claim in CLAIMS] == [
        ("A", "identity_cosine", "difference", 0.2, 0.3),
        ("A", "judge_accuracy", "difference", -0.02, -0.01),
        ("B", "judge_accuracy", "difference", 0.03, 0.05),
        ("B", "overfit_gap", "level", -0.05, 0.05),
        ("C", "diversity", "relative", 0.15, 0.5),
        ("A+B+C", "judge_accuracy", "difference", 0.06, 0.06),
        ("D", "judge_accuracy", "difference", 0.04, 0.08),
        ("D", "variation", "variation", -0.3, -0.3),
    ]
