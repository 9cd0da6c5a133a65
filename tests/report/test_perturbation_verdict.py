"""What the verdict of a perturbation says, and what it must not claim."""

from typing import Any

import pytest

from diffaudit.report.perturbation_verdict import GAIN, perturbation_verdict
from diffaudit.report.verdict import Verdict


def share(value: float, low: float | None, high: float | None, n: int = 40) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def reference(transfer: dict[str, Any] | None, distance: float) -> dict[str, Any]:
    return {"transfer_mean": transfer, "perceptual_distance": share(distance, distance, distance)}


def metrics(**changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = {
        "images": 40,
        "targeted": False,
        "models": {"seen": "surrogate", "one": "heldout", "two": "heldout"},
        "clean_accuracy": {"seen": share(0.95, 0.9, 1), "one": share(0.9, 0.8, 1), "two": share(0.9, 0.8, 1)},
        "transfer_mean": share(0.43, 0.31, 0.55),
        "white_box_mean": share(0.97, 0.9, 1),
        "defended_success": {"jpeg-75": share(0.4, 0.3, 0.5), "resize-pad-0.85": share(0.2, 0.1, 0.3), "none": None},
        "perceptual_distance": share(0.02, 0.018, 0.022),
        "psnr": share(30, 29, 31),
        "reconstruction_psnr": share(40, 39, 41),
        "references": {
            "pgd-4": reference(share(0.1, 0.04, 0.15), 0.01),
            "pgd-16": reference(share(0.8, 0.7, 0.9), 0.1),
        },
    }
    return found | changes


def read(**changes: Any) -> Verdict:
    said = perturbation_verdict(metrics(**changes))
    return Verdict(
        plain(said.sentence), plain(said.context), plain(said.gain), tuple(plain(caution) for caution in said.cautions)
    )


def plain(text: str) -> str:
    return text.replace("\N{NO-BREAK SPACE}", " ").replace("\N{EN DASH}", "-")


def test_the_sentence() -> None:
    assert read().sentence == (
        "Changes made in a diffusion latent fool two models that the attack never saw in 43 % (mean of the models; "
        "95 % interval 31-55 %) of the pictures that they first got right, and the model that they were made on in "
        "97 % (95 % interval 90-100 %)."
    )


def test_the_context() -> None:
    assert read().context == (
        "The perceptual distance to the clean picture is 0.0200 (0.0180-0.0220). Of the 40 clean pictures the models "
        "have 90 % to 95 % right. Behind the strongest defence, resize-pad-0.85, 20 % are fooled."
    )


def test_a_goal_is_said() -> None:
    assert "turn the answer of two models that the attack never saw to the class sought in 43 %" in read(
        targeted=True
    ).sentence  # fmt: skip


def test_ahead_of_every_nearer_reference() -> None:
    said = read()
    assert said.gain == GAIN
    assert said.cautions == ()


def test_a_nearer_reference_that_transfers_more_takes_the_frontier() -> None:
    said = read(references={"pgd-8": reference(share(0.5, 0.4, 0.6), 0.015)})
    assert said.gain == ""
    assert said.cautions == (
        "PGD 8/255 fools held-out models as often or more, in 50 %, at a perceptual distance that is no larger "
        "(0.0150): the attack is not on the frontier of this run.",
    )


def test_what_is_rebuilt_is_no_rival_and_is_told_of() -> None:
    rebuilt = reference(share(0.5, 0.4, 0.6), 0.001)
    said = read(references={"rebuilt": rebuilt, "pgd-4": reference(share(0.1, 0.02, 0.18), 0.01)})
    assert said.gain == GAIN
    assert said.context.endswith(
        "The way to the latent and back alone, without a perturbation, fools held-out models in 50 %."
    )
    assert "No reference attack was run" in read(references={"rebuilt": rebuilt}).cautions[0]


def test_overlapping_intervals_show_nothing() -> None:
    said = read(references={"pgd-4": reference(share(0.35, 0.25, 0.45), 0.01)})
    assert said.gain == ""
    assert "The interval overlaps that of PGD 4/255" in said.cautions[0]


def test_a_reference_is_read_between_its_budgets() -> None:
    """At 0.02, ten elevenths of the way from 10 % at 0.010 to 100 % at 0.021, PGD has 92 %, the attack 43."""
    near, far = reference(share(0.1, 0.02, 0.18), 0.01), reference(share(1.0, 0.9, 1.0), 0.021)
    said = read(references={"pgd-4": near, "pgd-16": far})
    assert said.gain == ""
    assert said.cautions == (
        "PGD between 4/255 and 16/255 would fool held-out models as often or more, in 92 %, at the same perceptual "
        "distance, as far as the budgets that were measured tell: the attack is not on the frontier of this run.",
    )


def test_a_reference_is_read_between_no_change_and_its_least_budget() -> None:
    """An attack of 5 % at 0.010 beside one of 95 % at 0.011 is ahead of nothing."""
    weak = {"transfer_mean": share(0.05, 0.0, 0.1), "perceptual_distance": share(0.01, 0.009, 0.011)}
    said = read(references={"pgd-4": reference(share(0.95, 0.9, 1.0), 0.011)}, **weak)
    assert said.gain == ""
    assert said.cautions[0].startswith("PGD below 4/255 would fool held-out models as often or more, in 86 %,")


def test_a_reference_that_grows_ever_more_slowly_is_not_read_off_the_line_between_its_budgets() -> None:
    """From 40 % at 0.018 to 50 % at 0.1 the line has 40.2 % at 0.02; as it grew before, 44 %, above the attack's 43."""
    slow = {"pgd-4": reference(share(0.4, 0.3, 0.5), 0.018), "pgd-16": reference(share(0.5, 0.4, 0.6), 0.1)}
    (said, *_) = read(references=slow).cautions
    assert said.startswith("PGD between 4/255 and 16/255 would fool held-out models as often or more, in 44 %,")
    full = {"pgd-4": reference(share(0.4, 0.3, 0.5), 0.018), "pgd-16": reference(share(0.41, 0.31, 0.51), 0.1)}
    assert "overlaps that of PGD 4/255 and PGD between 4/255 and 16/255" in read(references=full).cautions[0]


def test_no_line_goes_on_beyond_the_largest_budget() -> None:
    said = read(references={"pgd-4": reference(share(0.1, 0.02, 0.18), 0.01)})
    assert said.gain == GAIN
    assert said.cautions == (
        "PGD was not measured beyond a perceptual distance of 0.0100, and the attack lies there: what it would do as "
        "far away is not known.",
    )


def test_methods_are_lines_of_their_own() -> None:
    """PGD's one budget is nearer than MI-FGSM's; no line joins the two, and beyond its own PGD is not known."""
    theirs = {"pgd-4": reference(share(0.1, 0.02, 0.18), 0.01), "mi-fgsm-4": reference(share(0.9, 0.8, 1.0), 0.2)}
    assert read(references=theirs).gain == GAIN
    (said,) = read(references=theirs).cautions
    assert said.startswith("PGD was not measured beyond a perceptual distance of 0.0100")


def test_the_attacks_own_ruler_is_told_of() -> None:
    assert not any("network" in said for said in read().cautions)
    assert any("favours the attack" in said for said in read(own_ruler=True).cautions)


@pytest.mark.parametrize(
    ("change", "caution"),
    [
        ({"references": {}}, "No reference attack was run"),
        ({"clean_accuracy": {"seen": share(0.9, 0.8, 1), "one": share(0.4, 0.3, 0.5)}}, "one: less than half"),
        ({"transfer_mean": share(0.43, None, None)}, "There is one such picture"),
        ({"transfer_mean": share(0.43, 0.31, 0.55, n=30)}, "10 of 40 pictures are left out"),
        ({"reconstruction_psnr": share(31, 30, 32)}, "much of the change is the autoencoder's"),
    ],
)
def test_cautions(change: dict[str, Any], caution: str) -> None:
    assert any(caution in said for said in read(**change).cautions)


def test_without_held_out_models_nothing_is_said_of_transfer() -> None:
    said = read(transfer_mean=None, models={"seen": "surrogate", "more": "surrogate"})
    assert "fool two models that they were made on in 97 % (mean of the models" in said.sentence
    assert "no held-out model was judged, so whether they transfer is not known" in said.sentence
    assert said.gain == ""


def test_held_out_models_that_had_nothing_right_are_not_called_absent() -> None:
    assert "no held-out model had a picture right, so whether they transfer" in read(transfer_mean=None).sentence


def test_without_a_clean_picture_right_there_is_nothing_to_fool() -> None:
    assert read(transfer_mean=None, white_box_mean=None).sentence.startswith("No model was right on a clean picture")


def test_pictures_that_deserve_another_label_are_told_of() -> None:
    found = read(label_kept=share(0.8, 0.7, 0.9), transfer_kept=share(0.3, 0.2, 0.4))
    assert found.sentence == (
        "Changes made in a diffusion latent fool two models that the attack never saw in 30 % (mean of the models; "
        "95 % interval 20-40 %) of the pictures that they first got right, if only pictures count that still deserve "
        "their label; in 43 % if all do."
    )
    assert "80 % of the changed pictures still deserve their label." in found.context
    assert any(caution.startswith("Only 80 % of the changed pictures still deserve") for caution in found.cautions)
    kept = read(label_kept=share(0.95, 0.9, 1), transfer_kept=share(0.4, 0.3, 0.5))
    assert not any("deserve" in caution for caution in kept.cautions)


def test_what_is_added_back_is_no_change() -> None:
    close = {"reconstruction_psnr": share(31, 30, 32), "psnr": share(30, 29, 31)}
    assert any("much of the change is the autoencoder's" in caution for caution in read(**close).cautions)
    added = read(**close, residual_added=True)
    assert not any("autoencoder" in caution for caution in added.cautions)
    assert "What inversion and autoencoder lose of a picture is added back." in added.context


def test_the_frontier_is_of_what_keeps_its_label_where_that_is_known() -> None:
    """PGD fools more at a smaller distance, but of pictures that deserve another label: it is not ahead."""
    theirs = {**reference(share(0.6, 0.5, 0.7), 0.01), "transfer_kept": share(0.1, 0.02, 0.18)}
    known = {"label_kept": share(0.95, 0.9, 1), "transfer_kept": share(0.4, 0.3, 0.5)}
    assert "not on the frontier" in str(read(references={"pgd-4": theirs}).cautions)
    assert read(references={"pgd-4": theirs}, **known).gain == GAIN
