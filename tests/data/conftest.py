from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diffaudit.data.faces import (
    EXPRESSION_FACTORS,
    IDENTITY_FACTORS,
    ILLUMINATION_FACTORS,
    POSE_FACTORS,
    SCENE_FACTORS,
    FaceFactors,
)

Portrait = Callable[..., FaceFactors]


@pytest.fixture
def portrait() -> Portrait:
    """One face of middling factors, from the front, lit from the front; any factor can be given by its name."""

    def with_factors(**given: float) -> FaceFactors:
        usual = dict.fromkeys(IDENTITY_FACTORS + SCENE_FACTORS, 0.5) | {"beard": 0.0, "glasses": 0.0, "ambient": 0.4}
        groups = (IDENTITY_FACTORS, POSE_FACTORS, EXPRESSION_FACTORS, ILLUMINATION_FACTORS, SCENE_FACTORS)
        unknown = given.keys() - {name for names in groups for name in names}
        assert not unknown
        values = usual | given
        return FaceFactors(*(torch.tensor([[values.get(name, 0.0) for name in names]]) for names in groups))

    return with_factors
