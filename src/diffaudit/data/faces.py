"""Procedural faces: the factors of a face, how they are drawn, and sets of identities. :mod:`.rendering` paints."""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

IDENTITY_FACTORS = (
    "head_width",
    "head_height",
    "jaw_width",
    "skin_tone",
    "skin_warmth",
    "hair_darkness",
    "hair_redness",
    "hair_length",
    "hairline",
    "hair_volume",
    "eye_spacing",
    "eye_size",
    "eye_hue",
    "eye_height",
    "brow_thickness",
    "brow_height",
    "nose_length",
    "nose_width",
    "mouth_width",
    "lip_fullness",
    "beard",
    "glasses",
    "ear_size",
)
POSE_FACTORS = ("yaw", "pitch", "roll")
EXPRESSION_FACTORS = ("smile", "mouth_opening", "blink", "brow_raise")
ILLUMINATION_FACTORS = ("light_azimuth", "light_elevation", "ambient")
SCENE_FACTORS = (
    "r0",
    "g0",
    "b0",
    "r1",
    "g1",
    "b1",
    "angle",
    "cloth_r",
    "cloth_g",
    "cloth_b",
    "shift_x",
    "shift_y",
    "zoom",
)

BEARD_RATE = 0.35
GLASSES_RATE = 0.3


@dataclass(frozen=True, eq=False)
class FaceFactors:
    """The known causes of ``N`` images, row by row.

    Attributes:
        identity: ``(N, 23)`` in [0, 1], named by :data:`IDENTITY_FACTORS`; beard and glasses are 0 where absent.
        pose: ``(N, 3)`` yaw, pitch, roll in degrees; positive yaw turns the face to the right of the picture,
            positive pitch lifts the chin, positive roll leans the head to the right.
        expression: ``(N, 4)`` smile in [-1, 1], mouth opening and blink in [0, 1], brow raise in [-1, 1].
        illumination: ``(N, 3)`` azimuth in [-90, 90] degrees (positive: from the right), elevation in [-20, 70]
            degrees, ambient share in [0.25, 0.65].
        scene: ``(N, 13)`` what belongs to the photograph alone: backdrop, clothes, framing.
    """

    identity: Tensor
    pose: Tensor
    expression: Tensor
    illumination: Tensor
    scene: Tensor

    def __len__(self) -> int:
        return len(self.identity)

    def __getitem__(self, index: slice | Tensor) -> "FaceFactors":
        return FaceFactors(*(getattr(self, field.name)[index] for field in fields(self)))


def sample_identities(count: int, *, seed: int) -> Tensor:
    """``(count, 23)`` identity factors, independent and uniform but for beard and glasses, which most lack.

    The first rows do not depend on ``count``.

    >>> bool((sample_identities(3, seed=1) == sample_identities(9, seed=1)[:3]).all())
    True
    """
    factors = torch.rand(count, len(IDENTITY_FACTORS), generator=torch.Generator().manual_seed(seed))
    for name, rate in (("beard", BEARD_RATE), ("glasses", GLASSES_RATE)):
        column = IDENTITY_FACTORS.index(name)
        draw = factors[:, column]
        factors[:, column] = torch.where(draw < rate, 0.4 + 0.6 * draw / rate, 0.0)
    return factors


def with_near_twins(identities: Tensor, pairs: int, *, seed: int, changed: int = 3, least: float = 0.35) -> Tensor:
    """``identities (N, 23)`` whose last ``pairs`` rows are twins of the first ``pairs``: ``changed`` factors differ.

    Each changed factor moves by ``least`` or more, so that twins are told apart by little, but not by nothing.
    Beard, glasses and hair stay: a twin is no disguise.

    >>> faces = with_near_twins(sample_identities(10, seed=1), 2, seed=2)
    >>> int((faces[-2:] != faces[:2]).sum())
    6
    """
    count = len(identities)
    if not 0 <= 2 * pairs <= count:
        raise ValueError(f"`pairs` should be between 0 and half the identities ({count // 2}). Found {pairs}.")
    generator = torch.Generator().manual_seed(seed)
    twins = identities[:pairs].clone()
    eligible = torch.tensor(
        [index for index, name in enumerate(IDENTITY_FACTORS) if not name.startswith(("hair", "beard", "glasses"))]
    )
    for twin in twins:
        columns = eligible[torch.randperm(len(eligible), generator=generator)[:changed]]
        travel = least + (0.6 - least) * torch.rand(changed, generator=generator)
        up = twin[columns] < 0.5
        twin[columns] = torch.where(up, twin[columns] + travel, twin[columns] - travel).clamp(0, 1)
    return torch.cat([identities[: count - pairs], twins]) if pairs else identities


def sample_faces(identity: Tensor, *, seed: int) -> FaceFactors:
    """One photograph's worth of pose, expression, light and scene for every row of ``identity (N, 23)``.

    >>> faces = sample_faces(sample_identities(2, seed=0), seed=3)
    >>> faces.pose.shape, faces.scene.shape
    (torch.Size([2, 3]), torch.Size([2, 13]))
    """
    draw = torch.rand(len(identity), 3 + 4 + 3 + 13 + 1, generator=torch.Generator().manual_seed(seed))
    pose, expression, light, scene, closed = draw.split([3, 4, 3, 13, 1], dim=1)
    spread = torch.tensor([36.0, 18.0, 12.0])
    opening = (expression[:, 1] * 2 - 1).clamp(min=0)
    blink = torch.where(closed[:, 0] < 0.1, 1.0, 0.35 * expression[:, 2])
    return FaceFactors(
        identity=identity,
        pose=(2 * pose - 1) * spread,
        expression=torch.stack([2 * expression[:, 0] - 1, opening, blink, 2 * expression[:, 3] - 1], dim=1),
        illumination=torch.stack([180 * light[:, 0] - 90, 90 * light[:, 1] - 20, 0.25 + 0.4 * light[:, 2]], dim=1),
        scene=scene,
    )


def photographs(identities: Tensor, per_identity: int, *, seed: int) -> tuple[FaceFactors, Tensor]:
    """``per_identity`` photographs of each of ``identities (C, 23)``, and their labels ``(C * per_identity,)``.

    >>> faces, labels = photographs(sample_identities(3, seed=0), 2, seed=1)
    >>> labels.tolist()
    [0, 0, 1, 1, 2, 2]
    """
    labels = torch.arange(len(identities)).repeat_interleave(per_identity)
    return sample_faces(identities[labels], seed=seed), labels
