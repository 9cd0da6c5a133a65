"""Sets of embeddings whose measures are known: on single points, on circles, and drawn from known people."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffaudit.judging import kernel_discrepancies
from diffaudit.study.bootstrap import cluster_bootstrap
from diffaudit.study.distribution import MEASURES, SPACE, Embedded, distribution_metrics, mean_discrepancy


def labels(classes: int, each: int) -> Tensor:
    return torch.arange(classes).repeat_interleave(each)


def at(direction: list[float], classes: int, each: int) -> Embedded:
    """Every image at one point."""
    return Embedded(torch.tensor([direction]).expand(classes * each, -1).clone(), labels(classes, each))


def people(
    classes: int, each: int, *, seed: int, noise: float = 0.5, drift: float = 0.0, dimension: int = 8
) -> Embedded:
    """Images of the people of ``seed // 1000``, each class's moved by ``drift`` in a direction of its own."""
    centres, own, images = (
        torch.randn(classes, size, dimension, generator=torch.Generator().manual_seed(one), dtype=torch.float64)
        for one, size in ((seed // 1000, 1), (seed + 500, 1), (seed, each))
    )
    found = nn.functional.normalize(centres + drift * own + noise * images, dim=2)
    return Embedded(found.flatten(0, 1), labels(classes, each))


def metrics(references: Embedded, **rows: Embedded) -> tuple[dict[str, Any], list[str]]:
    return distribution_metrics(rows, references, resamples=200)


def test_names_are_the_contract() -> None:
    found, _ = metrics(people(10, 8, seed=1), attack=people(10, 6, seed=2), start=people(10, 6, seed=3))
    assert found.keys() == {"space", "references", "classes", "rows"}
    assert (found["space"], found["references"], found["classes"]) == (SPACE, 80, 10)
    assert found["rows"].keys() == {"attack", "start"}
    for row in found["rows"].values():
        assert row.keys() == {"n", *MEASURES}
        assert row["n"] == 60
        assert row["frechet_distance"] is None
        for name in MEASURES.keys() - {"frechet_distance"}:
            assert row[name].keys() == {"value", "low", "high"}
            assert (row[name]["low"] is None) == (name != "kernel_distance")
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_sets_that_are_apart_in_closed_form() -> None:
    """Images at one point, photographs at another at a right angle: the kernel is 8 within and 1 across."""
    found, _ = metrics(at([0.0, 1.0], 5, 10), attack=at([1.0, 0.0], 5, 12))
    row = found["rows"]["attack"]
    assert list(row["kernel_distance"].values()) == pytest.approx([14.0] * 3)
    assert [row[name]["value"] for name in ("precision", "recall", "density", "coverage")] == [0.0] * 4


def test_a_set_against_itself() -> None:
    photographs = people(50, 8, seed=1)
    row = metrics(photographs, attack=photographs)[0]["rows"]["attack"]
    assert row["precision"]["value"] == row["recall"]["value"] == row["coverage"]["value"] == 1.0
    # Across the sets every image meets itself, within them it does not: a little below 0.
    assert -0.05 < row["kernel_distance"]["value"] < 0


def test_other_photographs_of_the_same_people_are_nearer_than_strangers() -> None:
    photographs = people(12, 8, seed=1)
    rows = metrics(photographs, same=people(12, 8, seed=2), others=people(12, 8, seed=5002))[0]["rows"]
    same, others = rows["same"]["kernel_distance"], rows["others"]["kernel_distance"]
    assert same["low"] < 0 < same["high"] < others["value"]


def test_frechet_distance_in_closed_form() -> None:
    """Photographs to the left and right, images above and below: means agree, variances are n / (n - 1) apart."""
    count = 2048
    ends = torch.tensor([1.0, -1.0], dtype=torch.float64).repeat(count // 2)
    still = torch.zeros(count, dtype=torch.float64)
    classes = labels(2, count // 2)
    across = Embedded(torch.stack([ends, still], dim=1), classes)
    along = Embedded(torch.stack([still, ends], dim=1), classes)
    found, notes = metrics(across, attack=along)
    assert found["rows"]["attack"]["frechet_distance"] == {
        "value": pytest.approx(2 * count / (count - 1)),
        "low": None,
        "high": None,
    }
    assert notes == []


def test_too_few_images_have_a_reason_and_no_number() -> None:
    found, notes = metrics(people(7, 7, seed=1), attack=people(7, 4, seed=2))
    assert all(found["rows"]["attack"][name] is None for name in MEASURES)
    assert notes == [
        "kernel_distance, precision, recall, density, coverage: needs at least 50 images in each set, has 28.",
        "frechet_distance: needs at least 2048 images in each set, has 28.",
    ]


def test_notes_name_the_rows_that_lack_a_measure() -> None:
    found, notes = metrics(people(10, 8, seed=1), attack=people(10, 5, seed=2), start=people(10, 4, seed=3))
    assert found["rows"]["attack"]["precision"] is not None
    assert found["rows"]["start"]["precision"] is None
    assert (
        "kernel_distance, precision, recall, density, coverage of start: needs at least 50 images in each set, has 40."
        in notes
    )


def test_one_image_of_a_class_has_no_pair() -> None:
    found, notes = metrics(people(60, 4, seed=1), attack=people(60, 1, seed=2))
    assert found["rows"]["attack"]["kernel_distance"] is None
    assert found["rows"]["attack"]["precision"] is not None
    assert "kernel_distance: needs two images of every class in each set, has one." in notes


def test_one_class_has_no_interval() -> None:
    row = metrics(people(1, 60, seed=1), attack=people(1, 60, seed=2))[0]["rows"]["attack"]
    assert row["kernel_distance"]["value"] is not None
    assert (row["kernel_distance"]["low"], row["kernel_distance"]["high"]) == (None, None)


def test_more_dimensions_than_images_have_no_frechet_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffaudit.study.distribution.FRECHET_MINIMUM", 50)
    wide = Embedded(torch.eye(60, 64), labels(2, 30))
    assert metrics(wide, attack=wide)[1] == ["frechet_distance: needs at least 65 images in each set, has 60."]


def test_rows_do_not_hang_together_and_repeat() -> None:
    photographs, attack = people(10, 8, seed=1), people(10, 6, seed=2)
    alone = metrics(photographs, attack=attack)[0]["rows"]["attack"]
    assert metrics(photographs, start=people(10, 6, seed=3), attack=attack)[0]["rows"]["attack"] == alone


def test_the_interval_is_that_of_the_shares_of_the_classes() -> None:
    discrepancies = torch.tensor([[4.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
    found = mean_discrepancy(discrepancies.mean(dim=1), torch.tensor([3, 8]), seed=5, resamples=300)
    # Rows have the means 2.5 and 1.5, the matrix 2.
    expected = cluster_bootstrap([3.0, 1.0], [3, 8], resamples=300, generator=np.random.default_rng(5))
    assert (found.value, (found.low, found.high)) == (2.0, expected)


@pytest.mark.parametrize(("drift", "noise"), [(0.0, 0.5), (0.7, 0.3)])
def test_coverage_of_the_interval(drift: float, noise: float) -> None:
    """People are drawn anew for every study; the truth is the mean of all, or 0 where images are as photographs."""
    classes, found = 20, []
    for study in range(150):
        images = people(classes, 4, seed=1000 * study + 1, drift=drift, noise=noise)
        photographs = people(classes, 8, seed=1000 * study + 2)
        scale = 8**0.5
        found.append(
            mean_discrepancy(
                kernel_discrepancies(
                    scale * images.embeddings, images.labels, scale * photographs.embeddings, photographs.labels
                ).mean(dim=1),
                torch.arange(classes),
                resamples=400,
            )
        )
    values = np.array([one.value for one in found])
    truth = float(values.mean()) if drift else 0.0
    assert abs(values.mean() - truth) < 3 * values.std() / len(found) ** 0.5
    held = np.mean([one.low <= truth <= one.high for one in found if one.low is not None and one.high is not None])
    assert held >= 0.91
