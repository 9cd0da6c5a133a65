"""Where the learned weights of a training ended, read off its curve."""

import math
from collections.abc import Sequence

from diffaudit.records import CurvePoint
from diffaudit.settings import InversionSettings, UncertaintyWeights
from diffaudit.settings.weighed import learned_groups
from diffaudit.weighting.uncertainty import CLAMP


def weights_at_bounds(curves: Sequence[CurvePoint], settings: InversionSettings) -> dict[str, float]:
    """Return the learned weights that ended at a bound of what can be learned, by group: it is the bound that weighs.

    Empty without steps, and where no weight is learned.
    """
    if not curves or not isinstance(settings.weighting, UncertaintyWeights):
        return {}
    weights = curves[-1].weights
    learned = [group for group in learned_groups(settings.weighting, settings.terms) if group in weights]
    return {group: weights[group] for group in learned if abs(math.log(2 * weights[group])) > CLAMP - 1e-4}
