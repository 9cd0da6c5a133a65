from typing import Any

import pytest

from diffaudit.report.verdict import Verdict, verdict


def share(value: float, low: float | None, high: float | None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


def difference(value: float, low: float | None, high: float | None, p: float) -> dict[str, Any]:
    return share(value, low, high) | {"p": p, "effect_size": 1.0}


def metrics(**changes: Any) -> dict[str, Any]:
    reference = {
        "upper": {"samples": 80, "judge_accuracy": share(0.97, 0.94, 0.99)},
        "start": {"samples": 80, "judge_accuracy": share(0.52, 0.43, 0.61)},
        "lower": {"samples": 80, "judge_accuracy": share(0.01, 0.0, 0.03)},
    }
    found: dict[str, Any] = {
        "samples": 80,
        "judge_accuracy": share(0.61, 0.52, 0.7),
        "judges": {"plain": {}, "depthwise": {}},
        "reference": reference,
        "overfit_gap": share(0.02, -0.03, 0.07),
        "versus_start": difference(0.09, 0.04, 0.14, 0.002),
    }
    return found | changes


def read(found: dict[str, Any], **manifest: Any) -> Verdict:
    said = verdict(found, {"num_classes": 100, "is_attack": True} | manifest)
    return Verdict(
        plain(said.sentence), plain(said.context), plain(said.gain), tuple(plain(caution) for caution in said.cautions)
    )


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_leak_is_said_with_interval_and_references() -> None:
    said = read(metrics())
    assert said.sentence == (
        "From a class index and the model itself, without one private image, the attack rebuilt faces that two "
        "independent judges recognise as the right person, among 100, in 61 % of 80 samples (mean of the judges; 95 % "
        "interval 52\N{EN DASH}70 %)."
    )
    assert said.context == (
        "Photographs of the real people reach 97 %; other people's photographs 1.0 %; without optimisation 52 %; "
        "chance is 1.0 %."
    )
    assert "optimisation adds 9.0 points (95 % interval 4.0 to 14.0), p = 0.002" in said.gain
    assert said.cautions == ()


@pytest.mark.parametrize(
    "found",
    [
        difference(0.03, -0.02, 0.08, 0.2),
        difference(0.03, 0.001, 0.06, 0.06),  # the test and the interval disagree: no claim
        difference(0.5, None, None, 1.0),  # one class
    ],
)
def test_a_gain_that_may_be_nothing_is_no_gain(found: dict[str, Any]) -> None:
    said = read(metrics(versus_start=found))
    assert said.gain == ""
    assert "cannot be told from zero" in said.cautions[0]


def test_a_loss_is_said() -> None:
    said = read(metrics(versus_start=difference(-0.2, -0.3, -0.1, 0.001)))
    assert said.gain == ""
    assert "made the images worse" in said.cautions[0]


def test_unpaired_runs_are_compared_by_their_intervals() -> None:
    said = read(metrics(versus_start=None))
    assert "overlaps that of the run without optimisation" in said.cautions[0]
    apart = metrics(versus_start=None, judge_accuracy=share(0.8, 0.7, 0.9))
    assert read(apart).cautions == ()


def test_an_overlap_with_other_people_is_no_leak() -> None:
    said = read(metrics(judge_accuracy=share(0.04, 0.02, 0.08)))
    assert "does not show that the model leaks" in said.cautions[0]


def test_blunt_judges_are_said() -> None:
    found = metrics()
    found["reference"]["upper"]["judge_accuracy"] = share(0.6, 0.5, 0.7)
    assert "blunt instruments" in " ".join(read(found).cautions)


def test_an_overfit_attack_is_said() -> None:
    assert "fools the target" in " ".join(read(metrics(overfit_gap=share(0.3, 0.2, 0.4))).cautions)


def test_one_judge_one_class() -> None:
    said = read(metrics(judges={"plain": {}}, judge_accuracy=share(0.5, None, None)))
    assert "an independent judge recognises as the right person" in said.sentence
    assert "no interval" in said.sentence
    assert "nothing is said about the others" in " ".join(said.cautions)


def test_an_oracle_run_is_not_called_an_attack() -> None:
    said = read(metrics(), is_attack=False)
    assert said.sentence.startswith("This run is not an attack")
    assert said.gain == ""


def test_unknown_references_are_not_made_up() -> None:
    said = read(metrics(reference={}, versus_start=None), num_classes=None)
    assert said.context == ""
    assert said.cautions == ()
    assert "among" not in said.sentence
