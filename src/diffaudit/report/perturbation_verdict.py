"""The verdict of a perturbation's report: whom the attack fools, at what price, and what that does not show."""

from collections.abc import Mapping
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.report.equal_distance import Rival, ended_before, rivals_within
from diffaudit.report.perturbation_wording import headline
from diffaudit.report.verdict import Verdict, count, overlap
from diffaudit.report.wording import DASH, NO_BREAK, found, interval_of_share, percent

Json = Mapping[str, Any]

GAIN = (
    "No reference attack fools held-out models as often at so small a perceptual distance, nor would one with a budget "
    "in between, as far as those that were measured tell."
)


def perturbation_verdict(metrics: Json) -> Verdict:
    """What the run shows, in plain words, and what it does not show."""
    gain, doubts = _frontier(metrics)
    return Verdict(_sentence(metrics), _context(metrics), gain, (*doubts, *_cautions(metrics)))


def _sentence(metrics: Json) -> str:
    held, seen = found(metrics, "transfer_mean"), found(metrics, "white_box_mean")
    change = "turn the answer of" if metrics["targeted"] else "fool"
    toward = " to the class sought" if metrics["targeted"] else ""
    if held is None and seen is None:
        return "No model was right on a clean picture, so there was nothing to fool."
    surrogates = _models(metrics, "surrogate", "the model that they were made on", "models that they were made on")
    if held is None:
        nobody = "had a picture right" if _number(metrics, "heldout") else "was judged"
        return (
            f"Changes made in a diffusion latent {change} {surrogates}{toward} in {_share(metrics, 'white_box_mean')} "
            f"of the pictures that {_they(metrics, 'surrogate')} first got right; no held-out model {nobody}, so "
            "whether they transfer is not known."
        )
    heldout = _models(metrics, "heldout", "a model that the attack never saw", "models that the attack never saw")
    after = f", and {surrogates} in {_share(metrics, 'white_box_mean')}" if seen else ""
    kept = found(metrics, "transfer_kept")
    if kept:
        return (
            f"Changes made in a diffusion latent {change} {heldout}{toward} in {_share(metrics, 'transfer_kept')} of "
            f"the pictures that {_they(metrics, 'heldout')} first got right, if only pictures count that still deserve "
            f"their label; in {percent(held['value'])} if all do."
        )
    return (
        f"Changes made in a diffusion latent {change} {heldout}{toward} in {_share(metrics, 'transfer_mean')} of the "
        f"pictures that {_they(metrics, 'heldout')} first got right{after}."
    )


def _context(metrics: Json) -> str:
    said = []
    distance = found(metrics, "perceptual_distance")
    if distance:
        said.append(f"The perceptual distance to the clean picture is {_distance(distance)}.")
    accuracies = [measure["value"] for measure in metrics["clean_accuracy"].values()]
    least, most = percent(min(accuracies)), percent(max(accuracies))
    span = most if least == most else f"{least} to {most}"
    said.append(f"Of the {metrics['images']} clean pictures the models have {span} right.")
    kept, seen = found(metrics, "label_kept"), found(metrics, "white_box_mean")
    if kept and seen:
        said.append(
            f"{percent(kept['value'])} of the changed pictures still deserve their label. The models that they were "
            f"made on are fooled in {percent(seen['value'])}, whatever the pictures deserve."
        )
    if metrics.get("residual_added"):
        said.append("What inversion and autoencoder lose of a picture is added back.")
    behind = {name: measure for name, measure in metrics["defended_success"].items() if measure}
    if behind:
        strongest = min(behind, key=lambda name: behind[name]["value"])
        said.append(f"Behind the strongest defence, {strongest}, {percent(behind[strongest]['value'])} are fooled.")
    rebuilt = found(metrics["references"].get(REBUILT) or {}, "transfer_mean")
    if rebuilt:
        said.append(
            f"The way to the latent and back alone, without a perturbation, fools held-out models in "
            f"{percent(rebuilt['value'])}."
        )
    return " ".join(said)


def _frontier(metrics: Json) -> tuple[str, list[str]]:
    """Where the attack stands among the references, and what that leaves in doubt."""
    key = headline(metrics).key
    mine, distance = found(metrics, key), found(metrics, "perceptual_distance")
    if mine is None or distance is None:
        return "", []
    attacks = {name: measures for name, measures in metrics["references"].items() if name != REBUILT}
    if not attacks:
        return "", ["No reference attack was run, so there is nothing to read the transfer against."]
    rivals = rivals_within(distance["value"], attacks, key)
    ahead = [rival for rival in rivals if rival.success["value"] >= mine["value"]]
    if ahead:
        return "", [_behind(max(ahead, key=lambda rival: rival.success["value"]))]
    doubts = [_beyond(method, cost) for method, cost in ended_before(distance["value"], attacks, key).items()]
    close = [rival.title for rival in rivals if overlap(mine, rival.success)]
    if close:
        doubt = (
            f"The interval overlaps that of {_listed(close)} at no larger a perceptual distance: that the attack is "
        )
        return "", [doubt + "ahead there is not shown.", *doubts]
    return GAIN, doubts


def _behind(rival: Rival) -> str:
    share, lost = percent(rival.success["value"]), "the attack is not on the frontier of this run."
    if rival.measured:
        return (
            f"{rival.title} fools held-out models as often or more, in {share}, at a perceptual distance that is no "
            f"larger ({rival.distance:.4f}): {lost}"
        )
    return (
        f"{rival.title} would fool held-out models as often or more, in {share}, at the same perceptual distance, as "
        f"far as the budgets that were measured tell: {lost}"
    )


def _beyond(method: str, largest: float) -> str:
    return (
        f"{method} was not measured beyond a perceptual distance of {largest:.4f}, and the attack lies there: what it "
        "would do as far away is not known."
    )


def _cautions(metrics: Json) -> list[str]:
    said = []
    if metrics.get("own_ruler"):
        said.append(
            "The perceptual distance is measured by the network by which the attack chose its images: among images at "
            "this distance it favours the attack. Set `judging.perceptual` to another."
        )
    blunt = [name for name, measure in metrics["clean_accuracy"].items() if measure["value"] < 0.5]
    if blunt:
        said.append(
            f"{_listed(blunt)}: less than half of the clean pictures are right, so success there rests on few pictures."
        )
    held = found(metrics, "transfer_mean")
    if held and held["low"] is None:
        said.append("There is one such picture, so nothing is said about others.")
    uncounted = metrics["images"] - held["n"] if held else 0
    if uncounted > 0.2 * metrics["images"]:
        said.append(f"{uncounted} of {metrics['images']} pictures are left out: no held-out model had them right.")
    rebuilt, psnr = found(metrics, "reconstruction_psnr"), found(metrics, "psnr")
    kept = found(metrics, "label_kept")
    if kept and kept["value"] < 0.9:
        said.append(
            f"Only {percent(kept['value'])} of the changed pictures still deserve their label. Of the others another "
            "one is right, and models that give it are not fooled."
        )
    loss_stays = not metrics.get("residual_added")
    if loss_stays and rebuilt and psnr and rebuilt["value"] < psnr["value"] + 3:
        said.append(
            f"Inversion alone, without an attack, gives the pictures back at {rebuilt['value']:.1f}{NO_BREAK}dB, the "
            f"attack at {psnr['value']:.1f}{NO_BREAK}dB: much of the change is the autoencoder's and the sampler's."
        )
    return said


def _share(metrics: Json, key: str) -> str:
    """A mean success with its interval, and that it is a mean where it is one of several models."""
    measure = metrics[key]
    role = "surrogate" if key == "white_box_mean" else "heldout"
    said = ["mean of the models"] if _number(metrics, role) > 1 else []
    if measure["low"] is not None:
        said.append(f"95{NO_BREAK}% interval {interval_of_share(measure)}")
    words = f" ({'; '.join(said)})" if said else ""
    return percent(measure["value"]) + words


def _distance(measure: Json) -> str:
    interval = f" ({measure['low']:.4f}{DASH}{measure['high']:.4f})" if measure["low"] is not None else ""
    return f"{measure['value']:.4f}{interval}"


def _models(metrics: Json, role: str, one: str, several: str) -> str:
    number = _number(metrics, role)
    return one if number == 1 else f"{count(number)} {several}"


def _they(metrics: Json, role: str) -> str:
    return "it" if _number(metrics, role) == 1 else "they"


def _number(metrics: Json, role: str) -> int:
    return sum(held == role for held in metrics["models"].values())


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
