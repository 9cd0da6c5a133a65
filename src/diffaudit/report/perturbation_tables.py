"""Tables of a perturbation's report: attacks side by side, models in their roles, defences, distances."""

from collections.abc import Mapping, Sequence
from typing import Any

from diffaudit.records import REBUILT
from diffaudit.report.perturbation_wording import CLEAN, DISTANCES, KEPT, ROLES, SUCCESS, attack_title, defence_measure
from diffaudit.report.tables import Table, table_line
from diffaudit.report.wording import Measure, Row, found

Json = Mapping[str, Any]


def attack_rows(metrics: Json) -> list[tuple[Row, Json]]:
    """The attack and every reference, each with its measures."""
    rows = [(Row("attack", attack_title("attack"), "in the diffusion latent"), metrics)]
    for name, measures in metrics["references"].items():
        if name == REBUILT:
            row = Row(name, attack_title(name), "DDIM inversion and decoding alone", "not an attack")
        else:
            row = Row(name, attack_title(name), "on pixels")
        rows.append((row, measures))
    return [(row, {**found, "samples": found["images"], "classes": metrics["classes"]}) for row, found in rows]


def attacks_table(metrics: Json) -> Table:
    """Success, the perceptual distance that it cost, and time, by attack."""
    distances = [one for one in DISTANCES if one.key in ("perceptual_distance", "seconds_per_image")]
    return _by_attack(
        metrics,
        "attacks",
        "Success is counted on pictures that the model first got right. Shares in percent; intervals are 95 % "
        "bootstraps over pictures.",
        [*SUCCESS, *KEPT, *distances],
    )


def distances_table(metrics: Json) -> Table:
    """Every distance to the clean picture, by attack."""
    return _by_attack(
        metrics,
        "distances",
        "Means over the pictures that a held-out model first had right, failures included; intervals are 95 % "
        "bootstraps over pictures.",
        DISTANCES[:-1],
    )


def defences_table(metrics: Json) -> Table:
    """Held-out models fooled behind each defence, by attack."""
    return _by_attack(metrics, "defences", _behind("Held-out models"), defence_measures(metrics))


def white_box_defences_table(metrics: Json) -> Table:
    """Surrogates fooled behind each defence, by attack."""
    measures = [defence_measure(name, "defended_white_box") for name in metrics["defended_white_box"]]
    return _by_attack(metrics, "white-box-defences", _behind("Surrogates"), measures)


def models_table(metrics: Json) -> Table:
    """Every model's clean accuracy, and how often each attack fools it."""
    attacks = [
        Measure(f"success.{row.key}", row.title, "fools", True, f"pictures on which {row.title} fools the model")
        for row, _ in attack_rows(metrics)
    ]
    lines = []
    for role, words in ROLES.items():
        for name in (name for name, held in metrics["models"].items() if held == role):
            success = {row.key: _success(measures, name) for row, measures in attack_rows(metrics)}
            warning = "not counted as transfer" if role == "sibling" else ""
            measures = {
                "samples": metrics["images"],
                "classes": metrics["classes"],
                "clean_accuracy": metrics["clean_accuracy"][name],
                "success": success,
            }
            lines.append(table_line(Row(role, name, words, warning), measures, [CLEAN, *attacks]))
    return Table(
        "models",
        "By model, the share of the pictures it first got right that fool it, in percent; intervals are 95 % "
        "bootstraps over pictures.",
        (CLEAN, *attacks),
        tuple(lines),
    )


def defence_measures(metrics: Json) -> list[Measure]:
    """No defence, and every defence of the run, as columns."""
    return [
        Measure("transfer_mean", "No defence", "fools", True, SUCCESS[0].meaning),
        *(defence_measure(name, "defended_success") for name in metrics["defended_success"]),
    ]


def _behind(models: str) -> str:
    return (
        f"{models} fooled behind a defence, in percent of the pictures that they have right behind it; a randomised "
        "defence is tried several times. Intervals are 95 % bootstraps over pictures."
    )


def _by_attack(metrics: Json, name: str, caption: str, columns: Sequence[Measure]) -> Table:
    """A line an attack; columns that no attack has are left out."""
    rows = attack_rows(metrics)
    kept = tuple(column for column in columns if any(found(measures, column.key) for _, measures in rows))
    return Table(name, caption, kept, tuple(table_line(row, measures, kept) for row, measures in rows))


def _success(measures: Json, model: str) -> Json | None:
    groups = ("white_box_success", "transfer_success", "sibling_success")
    return next((measures[group][model] for group in groups if model in measures[group]), None)
