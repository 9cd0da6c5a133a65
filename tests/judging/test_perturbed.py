"""Judges of adversarial images made of stubs whose every answer is known, and what they refuse."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, ThreatModelViolation
from diffaudit.judging.defences import Defence, reduced_depth, resize_defence
from diffaudit.judging.perturbed import PerturbationJudge, Perturbed, Role, fooled
from diffaudit.models.classifier import Classifier
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.records import PerturbationRecord

SIDE = 12
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pictures(*colours: tuple[int, int, int]) -> Tensor:
    return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, SIDE, SIDE).clone()


class Means(nn.Module):
    """Mean red, green and blue, turned round by ``shift`` places: class 0 is red unless it is turned."""

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3)).roll(self.shift, dims=1)


class Maps(nn.Module):
    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]


def classifier(fingerprint: str, shift: int = 0) -> Classifier:
    return Classifier(Means(shift), size=None, fingerprint=fingerprint)


FEATURES = PerceptualFeatures(Maps())
ROLES: dict[str, Role] = {"seen": "surrogate", "unseen": "heldout", "turned": "sibling"}


def judge(*defences: Defence) -> PerturbationJudge:
    models = {"seen": classifier("a"), "unseen": classifier("b"), "turned": classifier("c", shift=1)}
    return PerturbationJudge(models, ROLES, FEATURES, defences=defences)


ATTACK = Perturbed(
    row="attack",
    images=pictures(GREEN, RED, BLUE),
    clean=pictures(RED, RED, GREEN),
    labels=torch.tensor([0, 0, 1]),
    names=["red", "same", "green"],
    numbers=[4, 5, 9],
)


def records(perturbed: Perturbed = ATTACK, *defences: Defence, **options: Any) -> list[PerturbationRecord]:
    return judge(*defences).records([perturbed], seed=0, **options)


def test_records_by_hand() -> None:
    first, second, third = records()
    assert [(r.row, r.image, r.name, r.label, r.goal) for r in (first, second, third)] == [
        ("attack", 4, "red", 0, None), ("attack", 5, "same", 0, None), ("attack", 9, "green", 1, None),
    ]  # fmt: skip
    assert (third.picture, third.clean_picture) == ("images/attack/00009.png", "images/clean/00009.png")
    # The straight models take red for 0, green for 1, blue for 2; the turned one red for 1, green for 2, blue for 0.
    assert first.clean_hits == second.clean_hits == third.clean_hits == {"seen": True, "unseen": True, "turned": False}
    assert [r.predicted["seen"] for r in (first, second, third)] == [1, 0, 2]
    assert [r.predicted["turned"] for r in (first, second, third)] == [2, 1, 0]
    assert [r.fooled["seen"] for r in (first, second, third)] == [True, False, True]
    assert (first.defended, first.iterations, first.reconstruction_psnr) == ({}, None, None)


def test_a_goal_must_be_reached() -> None:
    found = records(replace(ATTACK, goals=torch.tensor([1, 1, 0])))
    assert [r.goal for r in found] == [1, 1, 0]
    assert [r.fooled["seen"] for r in found] == [True, False, False]
    assert [r.fooled["turned"] for r in found] == [False, True, True]


def test_a_tie_on_the_clean_picture_is_not_right() -> None:
    grey = replace(ATTACK, clean=pictures((9, 9, 9), RED, GREEN))
    assert [r.clean_hits["seen"] for r in records(grey)] == [False, True, True]


def test_distances_by_hand() -> None:
    first, second, _ = records()
    assert (second.psnr, second.l2, second.linf, second.perceptual_distance) == (None, 0, 0, 0)
    assert second.ssim == pytest.approx(1)
    # Red to green: two channels of every pixel move by 1; unit colours at right angles differ by 2.
    assert first.l2 == pytest.approx((2 * SIDE * SIDE) ** 0.5)
    assert first.linf == 1
    assert first.psnr == pytest.approx(1.7609, abs=1e-3)  # -10 log10 (2 / 3)
    assert first.perceptual_distance == pytest.approx(2)


def test_what_inversion_alone_gives_back_is_measured_against_the_clean_picture() -> None:
    black = pictures((0, 0, 0), RED, GREEN)
    found = records(replace(ATTACK, reconstructions=black, iterations=torch.tensor([3, 0, 7])))
    assert found[0].reconstruction_psnr == pytest.approx(4.7712, abs=1e-3)  # -10 log10 (1 / 3)
    assert found[1].reconstruction_psnr is None
    assert [r.iterations for r in found] == [3, 0, 7]


def test_a_defence_that_undoes_the_attack() -> None:
    back = Defence("undo", lambda images, _: pictures(RED, RED, GREEN)[: len(images)].float() / 255)
    found = records(ATTACK, back)
    assert [r.defended["undo"]["seen"] for r in found] == [0.0, 0.0, 0.0]
    assert [r.defended["undo"]["turned"] for r in found] == [None, None, None]


def test_repeats_count_where_the_defended_clean_picture_was_right() -> None:
    """The defence turns colours round in every second repeat: the clean picture is then wrong, and is not counted."""
    calls: list[int] = []

    def turn(images: Tensor, _: torch.Generator) -> Tensor:
        calls.append(len(images))
        return images.roll(1, dims=1) if (len(calls) - 1) % 2 else images

    found = records(ATTACK, Defence("turn", turn, repeats=4))
    assert len(calls) == 8
    # Repeats 1 and 3 leave pictures alone: red to green fools, red to red does not.
    assert [r.defended["turn"]["seen"] for r in found] == [1.0, 0.0, 1.0]
    # The turned model takes red for 1 and, where the defence turns it too, for 2: never for 0, the label.
    assert [r.defended["turn"]["turned"] for r in found] == [None, None, None]


def test_a_share_of_the_repeats() -> None:
    """The defence shows red instead of the picture with even odds: the share is what was drawn."""
    drawn = []

    def sometimes(images: Tensor, generator: torch.Generator) -> Tensor:
        keep = bool(torch.rand((), generator=generator) < 0.5)
        drawn.append(keep)
        return images if keep else pictures(RED).float().expand(len(images), -1, -1, -1) / 255

    one = replace(
        ATTACK, images=pictures(GREEN), clean=pictures(RED), labels=torch.tensor([0]), names=["a"], numbers=[0]
    )
    (found,) = records(one, Defence("sometimes", sometimes, repeats=8))
    assert drawn[:8] == drawn[8:]  # both pictures of a pair meet the same draw
    assert 0 < sum(drawn) < 16
    assert found.defended["sometimes"]["seen"] == sum(drawn) / 16


def test_the_clean_pictures_are_shown_to_a_defence_once_for_all_rows() -> None:
    shown: list[Tensor] = []

    def watched(images: Tensor, _: torch.Generator) -> Tensor:
        shown.append(images)
        return images

    defence = Defence("watched", watched)
    other = replace(ATTACK, row="other", images=ATTACK.clean)
    found = judge(defence).records([ATTACK, other], seed=0)
    assert len(shown) == 3
    assert torch.equal(shown[0], ATTACK.clean.float() / 255)
    assert found == records(ATTACK, defence) + records(other, defence)


def test_rows_of_other_pictures_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="`rows` should be made of the same clean pictures"):
        judge().records([ATTACK, replace(ATTACK, row="other", clean=pictures(RED, RED, RED))], seed=0)
    with pytest.raises(InvalidSetting, match="at least one row"):
        judge().records([], seed=0)


def test_batches_change_nothing() -> None:
    defences = (Defence("depth", lambda images, _: reduced_depth(images, bits=1)), resize_defence(0.5, repeats=3))
    assert records(ATTACK, *defences, batch=1) == records(ATTACK, *defences, batch=64)


def test_nothing_is_drawn_from_outside() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    records(ATTACK, resize_defence(repeats=2))
    assert torch.equal(state, torch.get_rng_state())


def test_fooled_by_nothing_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"`goals` should differ from the labels\. Found '0 for image 1'"):
        fooled(torch.tensor([0, 0]), torch.tensor([1, 0]), torch.tensor([0, 0]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": ATTACK.images.float()}, "`images` should be 8-bit pictures"),
        ({"clean": ATTACK.clean[:2]}, "`clean` should be 8-bit pictures"),
        ({"reconstructions": ATTACK.clean[:, :, :4]}, "`reconstructions` should be 8-bit pictures"),
        ({"names": ["one"]}, "`names` should hold one entry an image, 3 in all. Found 1"),
        ({"goals": torch.tensor([1])}, "`goals` should hold one entry an image"),
        ({"images": ATTACK.images[:0]}, "at least one image"),
    ],
)
def test_what_are_no_pairs_is_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        records(replace(ATTACK, **change))


@pytest.mark.parametrize("roles", [{}, {"seen": "surrogate"}, {**ROLES, "turned": "cousin"}])
def test_every_model_needs_a_role(roles: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match="`roles` should name each model once"):
        PerturbationJudge(judge().models, roles, FEATURES)


def test_defences_of_one_name_are_refused() -> None:
    same = Defence("a", lambda images, _: images)
    with pytest.raises(InvalidSetting, match="`defences` should have a name each"):
        judge(same, same)


def test_a_held_out_model_with_a_surrogates_file_is_refused() -> None:
    models = {"seen": classifier("a"), "unseen": classifier("a")}
    with pytest.raises(ThreatModelViolation, match="The judge `unseen` has the surrogate `seen`'s weight file"):
        PerturbationJudge(models, {"seen": "surrogate", "unseen": "heldout"}, FEATURES)
    sibling: dict[str, Role] = {"seen": "surrogate", "unseen": "sibling"}
    assert PerturbationJudge(models, sibling, FEATURES).roles == sibling


def test_a_held_out_model_made_from_a_surrogate_is_refused() -> None:
    first = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, 3)), size=None, fingerprint="a")
    second = Classifier(copy.deepcopy(first.model), size=None, fingerprint="b")
    with pytest.raises(ThreatModelViolation, match="seems to be trained from the surrogate `seen`'s weights"):
        PerturbationJudge({"seen": first, "un": second}, {"seen": "surrogate", "un": "heldout"}, FEATURES)
