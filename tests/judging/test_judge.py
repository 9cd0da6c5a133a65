"""Judges made of stubs whose every answer is known, and the judges that are refused."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffaudit.errors import InvalidSetting, ThreatModelViolation
from diffaudit.judging.judge import Instruments, Judge, Judged, PrivatePictures, refuse_dependent
from diffaudit.models.attributes import AttributeEstimator
from diffaudit.models.classifier import Classifier
from diffaudit.models.identity import IdentityEncoder
from diffaudit.models.perceptual import PerceptualFeatures

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def pictures(*colours: tuple[int, int, int]) -> Tensor:
    """One 2 x 2 byte picture per colour."""
    return torch.tensor(colours, dtype=torch.uint8)[:, :, None, None].expand(-1, -1, 2, 2).clone()


class Means(nn.Module):
    """Mean red, green and blue, turned round by ``shift`` places, times ``gain``."""

    def __init__(self, shift: int = 0, gain: float = 1.0) -> None:
        super().__init__()
        self.shift, self.gain = shift, gain

    def forward(self, images: Tensor) -> Tensor:
        return self.gain * images.mean((2, 3)).roll(self.shift, dims=1)


class Maps(nn.Module):
    def maps(self, images: Tensor) -> list[Tensor]:
        return [images]


class TenAttributes(nn.Module):
    """Every attribute is the mean red."""

    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1].mean((2, 3)).expand(-1, 10)


def classifier(fingerprint: str, shift: int = 0, gain: float = 1.0) -> Classifier:
    return Classifier(Means(shift, gain), size=None, fingerprint=fingerprint)


PRIVATE = PrivatePictures(pictures(RED, (0, 255, 255), GREEN, GREEN), torch.tensor([0, 0, 1, 1]))


def judge(private: PrivatePictures = PRIVATE, *, factors: nn.Module | None = None, attributes: bool = True) -> Judge:
    spread = torch.full((10,), 0.5)
    instruments = Instruments(
        target=classifier("target", gain=2.0),
        perceptual=PerceptualFeatures(Maps()),
        attributes=AttributeEstimator(TenAttributes(), size=None, spread=spread) if attributes else None,
    )
    encoder = IdentityEncoder(Means(), size=None, dimension=3, fingerprint="encoder")
    return Judge(
        {"straight": classifier("a"), "turned": classifier("b", shift=1)},
        encoder,
        private,
        instruments=instruments,
        factors=factors,
    )


ATTACK = Judged(
    "attack",
    pictures(RED, GREEN, (0, 153, 204)),
    torch.tensor([0, 0, 1]),
    torch.tensor([5, 6, 7]),
    pictures(GREEN, GREEN, GREEN),
)


def test_records_by_hand() -> None:
    first, second, third = judge().records(ATTACK)
    assert [(r.row, r.label, r.sample, r.source) for r in (first, second, third)] == [
        ("attack", 0, 0, 5), ("attack", 0, 1, 6), ("attack", 1, 0, 7),
    ]  # fmt: skip
    assert (third.image, third.source_image) == ("images/attack/0001-00.png", "images/source/00007.png")
    # The target answers twice the channel means: logits (2, 0, 0), (0, 2, 0), (0, 1.2, 1.6).
    assert [r.target_hit for r in (first, second, third)] == [True, False, False]
    assert first.target_log_probability == pytest.approx(float(torch.tensor([2.0, 0, 0]).log_softmax(0)[0]))
    assert third.target_log_probability == pytest.approx(float(torch.tensor([0, 1.2, 1.6]).log_softmax(0)[1]))
    # The second judge's channels are turned by one place: it takes red for 1 and green for 2, blue for 0.
    assert [r.judges["straight"].predicted for r in (first, second, third)] == [0, 1, 2]
    assert [r.judges["turned"].predicted for r in (first, second, third)] == [1, 2, 0]
    assert [r.judges["turned"].hit for r in (first, second, third)] == [False, False, False]
    assert first.judges["straight"].hit
    assert all(vote.top5 for r in (first, second, third) for vote in r.judges.values())


def test_features_by_hand() -> None:
    """Class 0 is private as red and cyan, class 1 twice as green."""
    first, second, third = judge().records(ATTACK)
    # Cyan is (0, 1, 1) / sqrt 2; the mean of it and red has equal shares of both: (1, 1 / sqrt 2, 1 / sqrt 2) / sqrt 2.
    assert first.identity_cosine == pytest.approx(0.5**0.5)
    assert second.identity_cosine == pytest.approx(0.5)
    assert third.identity_cosine == pytest.approx(0.6)
    assert first.knn_distance == pytest.approx(0)
    assert second.knn_distance == pytest.approx((2 - 2 * 0.5**0.5) ** 0.5)
    assert third.knn_distance == pytest.approx((0.4**2 + 0.8**2) ** 0.5)


def test_distances_to_the_source_by_hand() -> None:
    """Colours of unit length differ from green by 2 - 2 cos; every attribute's spread is a half."""
    first, second, third = judge().records(ATTACK)
    assert [r.perceptual_distance for r in (first, second, third)] == pytest.approx([2.0, 0.0, 2 - 2 * 0.6])
    assert first.attribute_error == pytest.approx({"pose": 2.0, "expression": 2.0, "illumination": 2.0})
    assert second.attribute_error == pytest.approx({"pose": 0.0, "expression": 0.0, "illumination": 0.0})


def test_without_estimators_there_is_no_attribute_error() -> None:
    record = judge(attributes=False).records(ATTACK)[0]
    assert record.attribute_error is None
    assert record.perceptual_distance == pytest.approx(2.0)


def test_photographs_have_no_source() -> None:
    record = judge().records(Judged("lower", PRIVATE.images, PRIVATE.labels, None, None))[0]
    assert (record.source, record.source_image, record.perceptual_distance, record.attribute_error) == (None,) * 4


def test_diversity_is_the_mean_perceptual_distance_in_the_class_or_nothing() -> None:
    four = Judged("attack", pictures(RED, GREEN, BLUE, BLUE), torch.tensor([0, 0, 1, 1]), None, None)
    assert [record.diversity for record in judge().records(four)] == pytest.approx([2.0, 2.0, 0.0, 0.0])
    assert [record.diversity for record in judge().records(ATTACK)] == [None] * 3
    # Colours at a right angle: their mean is as long as the root of a half.
    assert [record.embedding_variance for record in judge().records(four)] == pytest.approx([0.5, 0.5, 0.0, 0.0])
    assert [record.embedding_variance for record in judge().records(ATTACK)] == [None] * 3


FACTORS = torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.5, 0.0]])
SPREAD = torch.tensor([0.5, 0.25, 1.0])


def test_factor_error_by_hand() -> None:
    known = replace(PRIVATE, factors=FACTORS, factor_spread=SPREAD)
    errors = [record.factor_error for record in judge(known, factors=Means()).records(ATTACK)]
    # Found (1, 0, 0), (0, 1, 0), (0, 0.6, 0.8) for classes 0, 0, 1.
    assert errors == pytest.approx([0.0, (2 + 4 + 0) / 3, (0 + 0.4 + 0.8) / 3])


@pytest.mark.parametrize(
    ("factors", "spread", "estimator"), [(None, SPREAD, True), (FACTORS, None, True), (FACTORS, SPREAD, False)]
)
def test_factor_error_is_none_where_anything_is_unknown(
    factors: Tensor | None, spread: Tensor | None, estimator: bool
) -> None:
    private = replace(PRIVATE, factors=factors, factor_spread=spread)
    found = judge(private, factors=Means() if estimator else None).records(ATTACK)
    assert [record.factor_error for record in found] == [None] * 3


def test_an_upper_picture_never_meets_itself() -> None:
    private = PrivatePictures(pictures(RED, (0, 255, 255), BLUE, (0, 153, 204)), torch.tensor([0, 0, 1, 1]))
    records = judge(private).records(Judged("upper", private.images, private.labels, None, None))
    expected = [2**0.5, 2**0.5, (0.6**2 + 0.2**2) ** 0.5, (0.6**2 + 0.2**2) ** 0.5]
    assert [record.knn_distance for record in records] == pytest.approx(expected)
    attack = judge(private).records(Judged("attack", private.images, private.labels, None, None))
    assert [record.knn_distance for record in attack] == pytest.approx([0.0] * 4)


def test_a_copy_of_an_upper_picture_is_no_other_picture() -> None:
    private = PrivatePictures(pictures(RED, RED, BLUE), torch.tensor([0, 0, 0]))
    records = judge(private).records(Judged("upper", private.images, private.labels, None, None))
    assert [record.knn_distance for record in records] == pytest.approx([2**0.5] * 3)


def test_pictures_that_differ_in_one_pixel_are_two() -> None:
    images = pictures(RED, RED)
    images[1, 0, 1, 1] = 254
    private = PrivatePictures(images, torch.tensor([0, 0]))
    records = judge(private).records(Judged("upper", private.images, private.labels, None, None))
    assert [record.knn_distance for record in records] == pytest.approx([0.0, 0.0], abs=1e-3)


def test_an_upper_row_needs_two_pictures_of_everyone() -> None:
    private = PrivatePictures(pictures(RED, GREEN, BLUE), torch.tensor([0, 0, 1]))
    with pytest.raises(InvalidSetting, match=r"judging\.private.*two different pictures.*one of class 1"):
        judge(private).records(Judged("upper", private.images, private.labels, None, None))


def test_nothing_to_judge_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="at least one image"):
        judge().records(Judged("attack", pictures(RED)[:0], torch.tensor([], dtype=torch.long), None, None))


def test_batches_change_nothing() -> None:
    assert judge().records(ATTACK, batch=1) == judge().records(ATTACK)


def test_embeddings_by_hand_make_the_same_records() -> None:
    found = judge().embed(ATTACK.images)
    assert torch.allclose(found, torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.8]]))
    assert torch.equal(judge().embed(ATTACK.images, batch=1), found)
    assert torch.equal(judge().private_embeddings, judge().embed(PRIVATE.images))
    assert judge().records(ATTACK, embeddings=found) == judge().records(ATTACK)


def test_private_pictures_of_classes_come_class_by_class() -> None:
    part = PrivatePictures(pictures(RED, GREEN, BLUE), torch.tensor([4, 2, 4]), FACTORS).of(torch.tensor([2, 4]))
    assert part.labels.tolist() == [2, 4, 4]
    assert torch.equal(part.images, pictures(GREEN, RED, BLUE))
    assert part.factors is FACTORS


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 64), nn.LayerNorm(64), nn.ReLU(), nn.Linear(64, 64), nn.LayerNorm(64))


def fine_tuned(model: nn.Module, share: float) -> nn.Module:
    """A copy whose weights moved at random by ``share`` of their size."""
    moved = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(share * parameter.norm() / parameter.numel() ** 0.5 * torch.randn(parameter.shape))
    return moved


def a(model: nn.Module, fingerprint: str) -> Classifier:
    return Classifier(model, size=None, fingerprint=fingerprint)


def test_the_target_is_no_judge_of_itself() -> None:
    model = network(0)
    target = a(model, "target")
    for same in (target, a(model, "another mark")):
        with pytest.raises(ThreatModelViolation, match="`x` is the target itself"):
            refuse_dependent("x", same, target)


def test_a_judge_with_the_targets_file_is_refused() -> None:
    with pytest.raises(ThreatModelViolation, match="weight file"):
        refuse_dependent("x", a(network(0), "f" * 64), a(network(1), "f" * 64))


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_judge_made_from_the_targets_weights_is_refused(share: float) -> None:
    model = network(0)
    with pytest.raises(ThreatModelViolation, match="trained from the target's weights"):
        refuse_dependent("x", a(fine_tuned(model, share), "judge"), a(model, "target"))


def test_a_judge_of_the_same_architecture_trained_apart_passes() -> None:
    refuse_dependent("x", a(network(0), "judge"), a(network(1), "target"))


def test_gains_of_norm_layers_make_no_relatives() -> None:
    """They stay near 1 wherever they are trained, and are more than a thousand in wide networks."""

    def wide(seed: int) -> nn.Module:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 2048, 1), *(nn.BatchNorm2d(2048) for _ in range(3)))

    refuse_dependent("x", a(wide(0), "judge"), a(wide(1), "target"))


def test_the_judge_refuses_at_its_door() -> None:
    instruments = Instruments(classifier("target"), PerceptualFeatures(Maps()), None)
    encoder = IdentityEncoder(Means(), size=None, dimension=3, fingerprint="encoder")
    with pytest.raises(ThreatModelViolation, match="`copy`"):
        Judge({"fine": classifier("a"), "copy": classifier("target")}, encoder, PRIVATE, instruments=instruments)
