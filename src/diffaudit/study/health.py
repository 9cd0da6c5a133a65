"""What the looks at a training amount to: lines that pass or fail, with advice, from the points alone."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from diffaudit.records import HealthPoint
from diffaudit.study.stability import VANISHED, irregular

UNIT_TOLERANCE = 1e-5
CONFLICT = -0.5
"""Mean cosine below which a pair fails: the sum of two gradients of one length is then shorter than either."""
LIGHT_SHARE = 0.05
LONG = 100
"""After how many steps a weight that stayed light, or a sigma that did not move, is told."""


@dataclass(frozen=True, kw_only=True)
class HealthLine:
    """One line of the panel: what was looked at, whether it is as it should be, what was seen, what to do.

    ``passed`` is None where there was too little to look at, which ``detail`` then says.
    """

    name: str
    passed: bool | None
    detail: str
    advice: str = ""


def normalised_weights(weights: Mapping[str, float]) -> dict[str, float]:
    """Return each group's share of the weights' sum; 0 for all where nothing weighs.

    >>> normalised_weights({"cls": 3.0, "id": 1.0})
    {'cls': 0.75, 'id': 0.25}
    """
    total = sum(weights.values())
    return {group: weight / total if total > 0 else 0.0 for group, weight in weights.items()}


def long_enough(points: Sequence[HealthPoint]) -> int | None:
    """Return how many steps are long in a run with these looks: 100, or half of the steps between first and last look.

    None for fewer than two looks, between which nothing can have lasted or moved.
    """
    between = points[-1].step - points[0].step if points else 0
    return min(LONG, max(1, between // 2)) if between > 0 else None


def light_groups(
    points: Sequence[HealthPoint],
    *,
    steps: int,
    share: float = LIGHT_SHARE,
    exempt: Collection[str] = ("reg",),
) -> list[str]:
    """Return the groups whose share of the weights stayed above 0 and under ``share`` for ``steps`` steps on end.

    A group of weight 0 is watched on purpose, and a regulariser weighs little by design. Shares are those of the looks;
    between two looks they count as the same.
    """
    since: dict[str, int] = {}
    light: dict[str, None] = {}
    for point in points:
        for group, part in normalised_weights(point.weights).items():
            if group in exempt or not 0 < part < share:
                since.pop(group, None)
            elif point.step - since.setdefault(group, point.step) >= steps:
                light[group] = None
    return list(light)


def sigma_drift(points: Sequence[HealthPoint], *, steps: int) -> dict[str, float]:
    """Return how far each ``log sigma^2`` had come from its first look when ``steps`` were over; empty before."""
    if not points:
        return {}
    later = next((point for point in points if point.step >= points[0].step + steps), None)
    if later is None:
        return {}
    return {group: later.log_variances[group] - first for group, first in points[0].log_variances.items()}


def health_lines(points: Sequence[HealthPoint]) -> list[HealthLine]:
    """Return the panel, of the looks of one run in order; a line that does not apply to the run is left out."""
    lines = [_units(points), _cosines(points), _gradients(points), _conflicts(points), _hinges(points)]
    lines += [_drift(points), _clamps(points), _weights(points), _centres(points)]
    return [line for line in lines if line is not None]


def _units(points: Sequence[HealthPoint]) -> HealthLine | None:
    errors = [(error, name) for point in points for name, error in point.norm_error.items()]
    if not errors:
        return None
    worst, name = max(errors, key=lambda item: math.inf if math.isnan(item[0]) else item[0])
    return HealthLine(
        name="unit embeddings",
        passed=worst <= UNIT_TOLERANCE,
        detail=f"lengths within {worst:.1e} of 1, farthest `{name}`",
        advice="" if worst <= UNIT_TOLERANCE else f"Normalise `{name}` where it is made.",
    )


def _cosines(points: Sequence[HealthPoint]) -> HealthLine | None:
    seen = {
        name: [pair for point in points if (pair := getattr(point, name)) is not None]
        for name in ("positives", "negatives")
    }
    ranges = {name: (min(low for low, _ in p), max(high for _, high in p)) for name, p in seen.items() if p}
    if not ranges:
        return None
    inside = all(abs(end) <= 1 + UNIT_TOLERANCE for pair in ranges.values() for end in pair)
    return HealthLine(
        name="cosines",
        passed=inside,
        detail="; ".join(f"{name} in [{low:.3f}, {high:.3f}]" for name, (low, high) in ranges.items()),
        advice="" if inside else "Vectors that are not unit are compared: normalise them.",
    )


def _gradients(points: Sequence[HealthPoint]) -> HealthLine | None:
    norms: dict[str, list[tuple[str, float]]] = {}
    for point in points:
        for name, norm in point.gradient_norms.items():
            norms.setdefault(name, []).append((point.stage, norm))
    if not norms:
        return None
    dead = [name for name, looks in norms.items() if not any(norm >= VANISHED for _, norm in looks)]
    broken = [name for name, looks in norms.items() if not all(math.isfinite(norm) for _, norm in looks)]
    advice = []
    if dead:
        advice.append(f"Never pulled at what is trained: {', '.join(dead)}. Leave out, or train what they depend on.")
    if broken:
        advice.append(f"Not finite: {', '.join(broken)}. Lower the learning rate.")
    return HealthLine(
        name="term gradients",
        passed=not advice,
        detail=", ".join(f"{name} {_spread(looks)}" for name, looks in norms.items()),
        advice=" ".join(advice),
    )


def _spread(looks: Sequence[tuple[str, float]]) -> str:
    """The least and the largest norm and, where there are such, the share that vanished or burst."""
    norms, odd = [norm for _, norm in looks], sum(irregular(looks)) / len(looks)
    return f"{min(norms):.1e} to {max(norms):.1e}" + (f" (vanished or burst in {odd:.0%} of the looks)" if odd else "")


def _conflicts(points: Sequence[HealthPoint]) -> HealthLine | None:
    pairs: dict[tuple[str, str], list[float]] = {}
    for point in points:
        for one, others in point.gradient_cosines.items():
            for other, cosine in others.items():
                if cosine is not None:
                    pairs.setdefault((one, other), []).append(cosine)
    if not pairs:
        return None
    means = {pair: sum(values) / len(values) for pair, values in pairs.items()}
    (one, other), least = min(means.items(), key=lambda item: item[1])
    return HealthLine(
        name="conflicts",
        passed=least >= CONFLICT,
        detail=f"least mean cosine of two term gradients {least:.2f}, `{one}` and `{other}`",
        advice="" if least >= CONFLICT else "They undo each other: lower one, or weigh gradients (UPGrad).",
    )


def _hinges(points: Sequence[HealthPoint]) -> HealthLine | None:
    if not points or not points[-1].satisfied:
        return None
    shares = {name: share for name, share in points[-1].satisfied.items() if share > 0}
    done = [name for name, share in shares.items() if share == 1]
    return HealthLine(
        name="satisfied hinges",
        passed=not done,
        detail=", ".join(f"{name} {share:.0%}" for name, share in shares.items()) or "none at the last look",
        advice=f"0 for every image, hence without gradient: {', '.join(done)}. Raise the margin." if done else "",
    )


def _drift(points: Sequence[HealthPoint]) -> HealthLine | None:
    if not points or not points[0].log_variances:
        return None
    steps = long_enough(points)
    if steps is None:
        return _too_few("sigma drift")
    drift = sigma_drift(points, steps=steps)
    still = [group for group, way in drift.items() if way == 0]
    return HealthLine(
        name="sigma drift",
        passed=not still,
        detail=f"log sigma^2 after {steps} steps: " + ", ".join(f"{group} {way:+.2f}" for group, way in drift.items()),
        advice=f"Did not move: {', '.join(still)}. Are they in the optimiser?" if still else "",
    )


def _clamps(points: Sequence[HealthPoint]) -> HealthLine | None:
    if not points or not points[-1].log_variances:
        return None
    looks = {group: sum(group in point.at_clamp for point in points) for group in points[-1].log_variances}
    stuck = list(points[-1].at_clamp)
    return HealthLine(
        name="sigma clamps",
        passed=not stuck,
        detail=", ".join(f"{group} at a bound in {count} of {len(points)} looks" for group, count in looks.items()),
        advice=f"The weight is the bound, not learned: {', '.join(stuck)}. Scale their terms." if stuck else "",
    )


def _weights(points: Sequence[HealthPoint]) -> HealthLine | None:
    if not points:
        return None
    steps = long_enough(points)
    if steps is None:
        return _too_few("weights")
    light = light_groups(points, steps=steps)
    shares = normalised_weights(points[-1].weights)
    return HealthLine(
        name="weights",
        passed=not light,
        detail=", ".join(f"{group} {share:.1%}" for group, share in shares.items()),
        advice=f"Under {LIGHT_SHARE:.0%} for {steps} steps: {', '.join(light)}. Rescale their terms (`scale`)."
        if light
        else "",
    )


def _too_few(name: str) -> HealthLine:
    return HealthLine(
        name=name,
        passed=None,
        detail="nothing to compare: a single look",
        advice="Look more often: lower `checkpoint_every`.",
    )


def _centres(points: Sequence[HealthPoint]) -> HealthLine | None:
    ways = [point.centre_travel for point in points if point.centre_travel is not None]
    if not ways:
        return None
    return HealthLine(
        name="centre travel",
        passed=max(ways) < 1,
        detail=f"at most {max(ways):.2f} of the centres' spread",
        advice="" if max(ways) < 1 else "A centre has left its class for the features: lower its learning rate.",
    )
