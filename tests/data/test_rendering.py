from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffaudit.data.faces import FaceFactors, sample_faces, sample_identities
from diffaudit.data.rendering import CHUNK_PIXELS, hair_colour, render_faces, skin_colour

Portrait = Callable[..., FaceFactors]

SIZE = 64


def faces_of(count: int) -> FaceFactors:
    return sample_faces(sample_identities(count, seed=11), seed=12)


def difference(one: FaceFactors, other: FaceFactors) -> Tensor:
    """How much each pixel differs: ``(H, W)``."""
    return (render_faces(one, size=SIZE) - render_faces(other, size=SIZE)).abs().mean(dim=1)[0]


def centre(weight: Tensor) -> tuple[float, float]:
    """The centroid of ``weight (H, W)`` as x to the right and y up, the picture being [-1, 1] x [-1, 1]."""
    line = (2 * torch.arange(SIZE) + 1) / SIZE - 1
    share = weight / weight.sum()
    return float(share.sum(dim=0) @ line), float(-share.sum(dim=1) @ line)


def rows_where(weight: Tensor) -> tuple[float, float]:
    """The lowest and highest y at which ``weight (H, W)`` is plainly not zero."""
    rows = (weight.amax(dim=1) > 0.02).nonzero()[:, 0]
    return 1 - 2 * (float(rows.max()) + 1) / len(weight), 1 - 2 * float(rows.min()) / len(weight)


def nose(portrait: Portrait, **pose: float) -> tuple[float, float]:
    """Where the nose is seen: where a broad one and a narrow one differ."""
    return centre(difference(portrait(nose_width=0.0, **pose), portrait(nose_width=1.0, **pose)))


@pytest.mark.parametrize("size", [16, 31, 64])
def test_shape_type_and_range(size: int) -> None:
    images = render_faces(faces_of(40), size=size)
    assert images.shape == (40, 3, size, size)
    assert images.dtype == torch.float32
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 1


def test_images_fill_the_range() -> None:
    images = render_faces(faces_of(40), size=32)
    assert images.amin() < 0.1
    assert images.amax() > 0.9
    assert images.std(dim=(1, 2, 3)).min() > 0.05


def test_an_image_does_not_depend_on_its_batch() -> None:
    faces = faces_of(CHUNK_PIXELS // 64**2 + 3)
    together = render_faces(faces)
    for index in (0, 5, len(faces) - 1):
        alone = render_faces(faces[index : index + 1])
        assert torch.allclose(alone[0], together[index], atol=1e-6, rtol=0)
    assert torch.allclose(render_faces(faces[torch.tensor([7, 2])]), together[[7, 2]], atol=1e-6, rtol=0)


def test_the_same_factors_give_the_same_bits() -> None:
    assert torch.equal(render_faces(faces_of(4), size=32), render_faces(faces_of(4), size=32))


def test_no_faces_give_no_images_and_small_sizes_are_refused() -> None:
    assert render_faces(faces_of(1)[:0], size=32).shape == (0, 3, 32, 32)
    with pytest.raises(ValueError, match=r"`size` should be at least 16 pixels\. Found 15\."):
        render_faces(faces_of(1), size=15)


def test_factors_are_left_as_they_are() -> None:
    faces, untouched = faces_of(4), faces_of(4)
    render_faces(faces, size=32)
    assert torch.equal(faces.identity, untouched.identity)
    assert torch.equal(faces.scene, untouched.scene)


def test_the_mirror_image_has_mirrored_factors() -> None:
    faces = faces_of(24)
    across = torch.tensor([-1.0, 1.0, -1.0])
    scene = faces.scene.clone()
    scene[:, 6] = 0.5 - scene[:, 6]
    scene[:, 10] = 1 - scene[:, 10]
    light = faces.illumination * torch.tensor([-1.0, 1.0, 1.0])
    mirrored = render_faces(replace(faces, pose=faces.pose * across, illumination=light, scene=scene))
    assert (mirrored.flip(3) - render_faces(faces)).abs().mean() < 1e-3


def test_a_larger_picture_scaled_down_is_the_smaller_one() -> None:
    faces = faces_of(16)
    small, large = render_faces(faces, size=64), F.avg_pool2d(render_faces(faces, size=256), 4)
    assert (small - large).abs().mean() < 0.01
    assert (small - large).abs().mean(dim=(1, 2, 3)).max() < 0.02


@pytest.mark.parametrize("degrees", [15.0, 30.0])
def test_positive_yaw_turns_the_nose_to_the_right(portrait: Portrait, degrees: float) -> None:
    right, ahead, left = (nose(portrait, yaw=yaw)[0] for yaw in (degrees, 0.0, -degrees))
    assert ahead == pytest.approx(0, abs=0.01)
    assert right > 0.1
    assert left == pytest.approx(-right, abs=0.01)


def test_positive_pitch_lifts_the_nose(portrait: Portrait) -> None:
    up, ahead, down = (nose(portrait, pitch=pitch)[1] for pitch in (15.0, 0.0, -15.0))
    assert up > ahead + 0.05
    assert down < ahead - 0.05


def test_positive_roll_leans_the_top_of_the_head_to_the_right(portrait: Portrait) -> None:
    def crown(roll: float) -> float:
        low, high = portrait(roll=roll, hair_volume=0.0), portrait(roll=roll, hair_volume=1.0)
        changed = difference(low, high)
        changed[SIZE // 4 :] = 0
        return centre(changed)[0]

    assert crown(12.0) > 0.03
    assert crown(-12.0) < -0.03


@pytest.mark.parametrize(("azimuth", "side"), [(-60.0, "left"), (60.0, "right")])
def test_light_brightens_the_cheek_on_its_side(portrait: Portrait, azimuth: float, side: str) -> None:
    luminance = render_faces(portrait(light_azimuth=azimuth, hair_length=0.0), size=SIZE).mean(dim=1)[0]
    # Just beside the nose: x = -0.3 to -0.2 or 0.2 to 0.3, y = -0.15 to -0.05.
    left, right = luminance[33:37, 22:26].mean(), luminance[33:37, 38:42].mean()
    bright, dark = (left, right) if side == "left" else (right, left)
    assert bright > dark + 0.1


def test_light_from_above_brightens_the_crown_and_darkens_the_chin(portrait: Portrait) -> None:
    low, high = (render_faces(portrait(light_elevation=angle), size=SIZE).mean(dim=1)[0] for angle in (-15.0, 65.0))
    assert high[8:12, 28:36].mean() > low[8:12, 28:36].mean() + 0.05
    assert high[46:50, 28:36].mean() < low[46:50, 28:36].mean() - 0.05


def test_a_brighter_ambient_share_lifts_the_shadow(portrait: Portrait) -> None:
    dim, bright = (
        render_faces(portrait(light_azimuth=80.0, ambient=share), size=SIZE)[0, :, 33:37, 22:26].mean()
        for share in (0.25, 0.65)
    )
    assert bright > dim + 0.1


def test_glasses_change_the_eyes_and_not_the_mouth(portrait: Portrait) -> None:
    changed = difference(portrait(), portrait(glasses=1.0))
    assert changed.max() > 0.2
    lowest, highest = rows_where(changed)
    assert -0.2 < lowest < 0.05
    assert 0.1 < highest < 0.35
    assert centre(changed)[0] == pytest.approx(0, abs=0.01)


def test_a_beard_changes_the_lower_face_and_not_the_eyes(portrait: Portrait) -> None:
    fair_and_black = {"skin_tone": 1.0, "hair_darkness": 1.0}
    changed = difference(portrait(**fair_and_black), portrait(**fair_and_black, beard=1.0))
    assert changed.max() > 0.2
    lowest, highest = rows_where(changed)
    assert lowest < -0.45
    assert highest < 0.0


def test_a_closed_eye_shows_no_white(portrait: Portrait) -> None:
    changed = difference(portrait(), portrait(blink=1.0))
    assert changed.max() > 0.3
    lowest, highest = rows_where(changed)
    assert lowest > -0.15
    assert highest < 0.3


def test_a_smile_lifts_the_corners_of_the_mouth(portrait: Portrait) -> None:
    """Lips are where full and thin ones differ: near the corners higher than in the middle, if the mouth smiles."""

    def lift(smile: float) -> float:
        shown = difference(portrait(smile=smile, lip_fullness=0.0), portrait(smile=smile, lip_fullness=1.0))
        middle = torch.zeros(SIZE, dtype=torch.bool)
        middle[30:34] = True
        return centre(shown * ~middle)[1] - centre(shown * middle)[1]

    assert lift(1.0) > lift(0.0) + 0.01 > lift(-1.0) + 0.02


def test_long_hair_falls_lower(portrait: Portrait) -> None:
    black, grey = {"hair_darkness": 1.0}, {"hair_darkness": 0.0}
    lowest = [
        rows_where(difference(portrait(hair_length=length, **black), portrait(hair_length=length, **grey)))[0]
        for length in (0.0, 0.5, 1.0)
    ]
    assert lowest[0] > lowest[1] + 0.2 > lowest[2] + 0.4


@pytest.mark.parametrize("name", ["head_width", "skin_tone", "eye_hue", "nose_length", "mouth_width", "ear_size"])
def test_every_kind_of_identity_factor_is_seen(portrait: Portrait, name: str) -> None:
    low, high = (portrait(**{"hair_length": 0.0, name: value}) for value in (0.0, 1.0))
    assert difference(low, high).max() > 0.05


def test_hair_and_skin_colours_at_their_corners() -> None:
    corner = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    hair = hair_colour(*corner)
    assert torch.allclose(hair[0], torch.tensor([0.80, 0.78, 0.74]))
    assert torch.allclose(hair[3], torch.tensor([0.24, 0.09, 0.05]))
    assert (hair[:2].mean(dim=1) > hair[2:].mean(dim=1) + 0.3).all()
    skin = skin_colour(*corner)
    assert (skin[2:].mean(dim=1) > skin[:2].mean(dim=1) + 0.4).all()
    assert (skin[1::2, 0] - skin[1::2, 2] > skin[::2, 0] - skin[::2, 2]).all()
