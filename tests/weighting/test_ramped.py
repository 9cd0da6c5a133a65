"""Ramped weights: where they begin, where they end, and what is refused."""

import pytest
import torch

from diffaudit.errors import InvalidSetting
from diffaudit.weighting import Ramp, Ramped


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_ramp_goes_from_its_start_to_its_end_and_stays_there(shape: str) -> None:
    ramp = Ramp(0.7, 0.3, shape)  # type: ignore[arg-type]
    assert ramp.at(0, 30) == 0.7
    assert ramp.at(29, 30) == pytest.approx(0.3)
    assert ramp.at(100, 30) == pytest.approx(0.3)
    assert ramp.at(0, 1) == 0.7
    falling = [ramp.at(step, 30) for step in range(30)]
    assert falling == sorted(falling, reverse=True)


def test_a_cosine_starts_slower_than_a_line_and_meets_it_in_the_middle() -> None:
    line, cosine = Ramp(0.0, 1.0), Ramp(0.0, 1.0, "cosine")
    assert cosine.at(1, 11) < line.at(1, 11)
    assert cosine.at(5, 11) == pytest.approx(line.at(5, 11))


def test_values_are_summed_by_name_with_the_weights_of_the_step() -> None:
    weighting = Ramped({"a": Ramp(1.0, 3.0), "b": Ramp(2.0, 0.0)}, steps=3)
    losses = {"b": torch.tensor([10.0, 20.0]), "a": torch.tensor([1.0, 1.0])}
    assert weighting(losses, 0).tolist() == [21.0, 41.0]
    assert weighting(losses, 1).tolist() == [12.0, 22.0]
    assert weighting(losses, 2).tolist() == [3.0, 3.0]


@pytest.mark.parametrize(
    ("ramps", "steps", "words"),
    [
        ({}, 3, "`ramps` should name at least one group"),
        ({"a": Ramp(-1.0, 0.0)}, 3, "`ramps.a`"),
        ({"a": Ramp(0.0, float("nan"))}, 3, "`ramps.a`"),
        ({"a": Ramp(0.0, 1.0)}, 0, "`steps` should be a positive number of iterations. Found 0."),
    ],
)
def test_refusals(ramps: dict[str, Ramp], steps: int, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        Ramped(ramps, steps=steps)
