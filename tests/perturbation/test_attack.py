import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diffaudit.attention import AttentionView
from diffaudit.candidate import Candidate
from diffaudit.eight_bit import to_bytes
from diffaudit.models.attention import attention_layers
from diffaudit.models.classifier import Classifier
from diffaudit.models.conditioning import Condition
from diffaudit.models.perceptual import PerceptualFeatures
from diffaudit.models.prior import DiffusionPrior
from diffaudit.objective import Entry, Objective
from diffaudit.perturbation.attack import Attacked, Iteration, attack, fooling
from diffaudit.perturbation.drive import Drive
from diffaudit.perturbation.ensemble import Agreement, Combined, Weighted
from diffaudit.perturbation.improvement import Improvement
from diffaudit.perturbation.movers import AdamWMover, MomentumMover, Mover, mover_of
from diffaudit.perturbation.plans import BudgetPlan, PathPlan, Plans, RecordingPlan, StepPlan, ViewPlan
from diffaudit.perturbation.rendering import render
from diffaudit.perturbation.scene import Perturber, Scene, prepared
from diffaudit.terms import (
    AttentionEntropy,
    Frequency,
    PixelDistance,
    SelfAttention,
    Term,
    fooling_margin,
    goal_cross_entropy,
)
from diffaudit.weighting import Fixed

MakePrior = Callable[[Callable[[Tensor, Tensor, Tensor], Tensor]], DiffusionPrior]

NOTHING = RecordingPlan()
AS_IT_IS = ViewPlan(0, 1, 0.0, (1.0, 1.0), 0.0, 0.0)
STEP = StepPlan("adamw", 0.05, 0.9, 1.0)
"""Told to the loop beside a mover that was made of it; it reads the mover alone."""
TURNED = ViewPlan(2, 2, 10.0, (0.9, 1.1), 0.05, 0.02)
LABELS = torch.tensor([0, 1, 2])


class Same(nn.Module):
    """The picture itself as the only feature map."""

    def maps(self, images: Tensor) -> list[Tensor]:
        return [images + 0.1]


def linear(seed: int, classes: int = 3, side: int = 8) -> Classifier:
    """Models that have half of what they see in common, and are undecided about grey."""
    common, own = (torch.randn(classes, 3 * side * side, generator=torch.Generator().manual_seed(s)) for s in (0, seed))
    head = nn.Linear(3 * side * side, classes)
    head.weight.data = (common + own) / side
    head.bias.data = -0.5 * head.weight.data.sum(1)
    layers = nn.Sequential(nn.Flatten(), head)
    return Classifier(layers, size=side, fingerprint=str(seed))


def wave(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
    """Noise that is linear in the latent: so is the picture, then."""
    places = torch.arange(latents[0].numel(), dtype=latents.dtype).view(latents[0].shape)
    return 0.3 * latents.roll(1, 3) + (places + timesteps[:, None, None, None] / 50).sin()


def perturber_of(prior: DiffusionPrior, models: Sequence[Classifier], names: Sequence[str] = "abc") -> Perturber:
    perceptual = PerceptualFeatures(Same())
    surrogates = {model.fingerprint: model for model in models}
    return Perturber(prior, surrogates, tuple(names), "a person with {label}", perceptual)


PATH = PathPlan(steps=10, start=8, guidance_scale=1.0)


@pytest.fixture
def toy(toy_prior: MakePrior) -> tuple[Perturber, Scene]:
    """Three pictures, each rightly told by two linear models, and a prior whose pictures are linear in the latent."""
    perturber = perturber_of(toy_prior(wave), [linear(1), linear(2)])
    images = torch.rand(60, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 0.5 + 0.25
    scene = prepared(perturber, images, torch.zeros(60).long(), PATH, NOTHING)
    votes = torch.stack([model.logits(scene.rebuilt).argmax(1) for model in perturber.surrogates.values()])
    agreed = [int(((votes == label).all(0)).nonzero()[0]) for label in range(3)]
    return perturber, prepared(perturber, images[agreed], LABELS, PATH, NOTHING)


def rows_of(scene: Scene, rows: list[int]) -> Scene:
    """The same pictures, fewer of them; of scenes without recorded attention."""
    distractors = None if scene.distractors is None else scene.distractors[rows]
    parts = {name: getattr(scene, name)[rows] for name in ("images", "labels", "latents", "rebuilt")}
    condition = Condition(scene.condition.tokens[rows])
    mask = None if scene.mask is None else scene.mask[rows]
    return replace(scene, **parts, condition=condition, mask=mask, distractors=distractors)


def margin_drive(scene: Scene, **more: Any) -> Drive:
    options: dict[str, Any] = {"rule": Weighted(), "weight": lambda _: 1.0} | more
    return Drive(lambda logits: fooling_margin(logits, scene.labels, kappa=10.0), **options)


def attacked(
    toy: tuple[Perturber, Scene],
    *,
    drive: Drive | None = None,
    objective: Objective | None = None,
    mover: Mover | None = None,
    path: PathPlan = PATH,
    recording: RecordingPlan = NOTHING,
    views: ViewPlan = AS_IT_IS,
    goal: Tensor | None = None,
    numbers: Sequence[int] | None = None,
    seed: int = 0,
    watch: list[Iteration] | None = None,
    **budget: Any,
) -> Attacked:
    perturber, scene = toy
    plan = {"iterations": 3, "radius": None, "perceptual": None, "stop_margin": None} | budget
    return attack(
        perturber,
        scene,
        drive or margin_drive(scene),
        objective,
        mover or AdamWMover(0.05),
        Plans(path, recording, views, STEP, BudgetPlan(**plan)),
        goal=goal,
        numbers=range(len(scene.images)) if numbers is None else numbers,
        seed=seed,
        on_iteration=None if watch is None else watch.append,
    )


def told(perturber: Perturber, images: Tensor) -> Tensor:
    """``(M, B)`` the classes that the models see in 8-bit pictures."""
    return torch.stack([model.logits(images.float() / 255).argmax(1) for model in perturber.surrogates.values()])


# What it does ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mover", [AdamWMover(0.05), MomentumMover(0.05, decay=0.9, clip=1.0)], ids=["adamw", "sign"])
def test_a_linear_world_is_fooled(toy: tuple[Perturber, Scene], mover: Mover) -> None:
    perturber, scene = toy
    seen: list[Iteration] = []
    found = attacked(toy, mover=mover, watch=seen, iterations=8)
    margins = torch.stack([step.margins.min(0).values for step in seen])
    assert (margins[0] < 0).all()
    assert (margins.diff(dim=0) > -0.02).all()  # 8 bits round a little
    assert (found.margin > 0).all()
    assert not (told(perturber, found.images) == scene.labels).any()
    assert [step.number for step in seen] == list(range(8))
    assert found.images.dtype == torch.uint8
    assert found.iterations.tolist() == [8, 8, 8]


def test_what_is_returned_belongs_together(toy: tuple[Perturber, Scene]) -> None:
    perturber, scene = toy
    found = attacked(toy)
    rendered = render(perturber.prior, found.latents, scene.condition, scene.nulls, PATH).image
    assert torch.equal((rendered.clamp(0, 1) * 255).round().byte(), found.images)
    logits = torch.stack([model.logits(found.images.float() / 255) for model in perturber.surrogates.values()])
    lead = torch.stack([fooling(some, scene.labels, None) for some in logits])
    torch.testing.assert_close(found.margin, lead.min(0).values, rtol=0, atol=1e-5)
    units = [nn.functional.normalize(one + 0.1, dim=1) for one in (found.images.float() / 255, scene.images)]
    torch.testing.assert_close(found.distance, (units[0] - units[1]).square().sum(1).mean((1, 2)))


def test_under_a_mask_the_latents_are_those_that_the_pictures_come_from(toy: tuple[Perturber, Scene]) -> None:
    perturber, scene = toy
    mask = torch.zeros(3, 1, 8, 8)
    mask[..., :4, :], mask[..., 4, :] = 1.0, 0.5
    found = attacked((perturber, replace(scene, mask=mask)))
    assert torch.equal(found.latents[..., 5:, :], scene.latents[..., 5:, :])
    assert (found.latents[..., :4, :] != scene.latents[..., :4, :]).any()
    rendered = render(perturber.prior, found.latents, scene.condition, scene.nulls, PATH).image
    assert torch.equal((rendered.clamp(0, 1) * 255).round().byte(), found.images)


def test_a_hinge_that_ends_before_the_stop_never_reaches_it(toy: tuple[Perturber, Scene]) -> None:
    """At kappa 0 nothing pulls once every model is fooled; at the stop's own margin the picture goes on to it."""
    _, scene = toy

    def run(kappa: float) -> Attacked:
        drive = Drive(lambda logits: fooling_margin(logits, scene.labels, kappa=kappa), Weighted(), lambda _: 1.0)
        mover = MomentumMover(0.02, decay=0.0, clip=1.0)
        return attacked(toy, drive=drive, mover=mover, iterations=40, stop_margin=2.0)

    short, far = run(0.0), run(2.0)
    assert (short.margin > 0).all()
    assert (short.margin < 2.0).all()
    assert (short.iterations == 40).all()
    assert (far.margin >= 2.0).all()
    assert (far.iterations < 40).all()


def test_a_goal_is_reached(toy: tuple[Perturber, Scene]) -> None:
    perturber, _ = toy
    goal = torch.tensor([2, 0, 1])
    drive = Drive(lambda logits: goal_cross_entropy(logits, goal), Weighted(), lambda _: 1.0)
    found = attacked(toy, drive=drive, goal=goal, iterations=12)
    assert (told(perturber, found.images) == goal).all()
    assert (found.margin > 0).all()


def test_fooling_by_hand() -> None:
    logits = torch.tensor([[1.0, 4.0, 2.0], [3.0, 0.5, 2.5]])
    assert fooling(logits, torch.tensor([0, 0]), None).tolist() == [3.0, -0.5]
    assert fooling(logits, torch.tensor([0, 0]), torch.tensor([2, 1])).tolist() == [-2.0, -2.5]


def test_the_first_step_is_along_the_gradient_of_all_that_is_asked(toy: tuple[Perturber, Scene]) -> None:
    """Weighted drive at length 1, or as it is, plus the terms' own gradient; nothing is averaged over pictures."""
    perturber, scene = toy
    moved = replace(scene, latents=scene.latents + 0.1)
    objective = Objective([Entry(name="l2", group="l2", term=PixelDistance())], Fixed({"l2": 30.0}))
    for unit in (True, False):
        latents = moved.latents.clone().requires_grad_()
        image = render(perturber.prior, latents, scene.condition, scene.nulls, PATH).image
        losses = [fooling_margin(model.logits(image), LABELS, kappa=10.0) for model in perturber.surrogates.values()]
        (drive,) = torch.autograd.grad(torch.stack(losses).mean(0).sum(), latents, retain_graph=True)
        if unit:
            drive = drive / drive.flatten(1).norm(dim=1)[:, None, None, None]
        distance = (image - scene.rebuilt).square().flatten(1).mean(1)
        (near,) = torch.autograd.grad(distance.sum(), latents)
        asked = Recorder()
        weighted = margin_drive(scene, weight=lambda iteration: 3.0 + iteration, unit=unit)
        attacked((perturber, moved), drive=weighted, objective=objective, mover=asked, iterations=1)
        torch.testing.assert_close(asked.gradients[0], 3 * drive + 30 * near, rtol=1e-4, atol=1e-6)


class Recorder(Mover):
    """Keeps the gradients and moves nothing."""

    def __init__(self) -> None:
        self.gradients: list[Tensor] = []

    def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
        self.gradients.append(gradient)
        return latents


# Each picture by itself -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", ["image", "latent"])
def test_a_picture_is_attacked_without_its_batch_mates(toy: tuple[Perturber, Scene], space: str) -> None:
    perturber, scene = toy
    entry = Entry(name="l2", group="l2", term=PixelDistance(), scale="ema")

    def run(rows: list[int]) -> Attacked:
        some = rows_of(scene, rows)
        drive = margin_drive(some, rule=Agreement(), in_latent=space == "latent")
        objective = Objective([replace(entry, rows=len(rows))], Fixed({"l2": 0.1}))
        options: dict[str, Any] = {"drive": drive, "objective": objective, "views": TURNED, "stop_margin": 1.0}
        return attacked((perturber, some), numbers=[40 + row for row in rows], radius=0.2, iterations=4, **options)

    together = run([0, 1, 2])
    for row in range(3):
        alone = run([row])
        torch.testing.assert_close(alone.latents[0], together.latents[row], rtol=0, atol=1e-5)
        torch.testing.assert_close(alone.margin[0], together.margin[row], rtol=0, atol=1e-4)
        assert alone.iterations[0] == together.iterations[row]
        assert (alone.images[0].int() - together.images[row].int()).abs().max() <= 1


def test_the_same_seed_gives_the_same_bits_and_another_does_not(toy: tuple[Perturber, Scene]) -> None:
    one, again, other = (attacked(toy, views=TURNED, seed=seed) for seed in (7, 7, 8))
    assert torch.equal(one.latents, again.latents)
    assert torch.equal(one.images, again.images)
    assert not torch.equal(one.latents, other.latents)


def test_a_picture_has_views_of_its_number(toy: tuple[Perturber, Scene]) -> None:
    """Not of its row: the same number elsewhere in the batch sees the same, another number does not."""
    first, second = Recorder(), Recorder()
    attacked(toy, mover=first, views=TURNED, numbers=(4, 5, 6), iterations=1)
    attacked(toy, mover=second, views=TURNED, numbers=(9, 5, 6), iterations=1)
    assert torch.equal(first.gradients[0][1:], second.gradients[0][1:])
    assert not torch.allclose(first.gradients[0][0], second.gradients[0][0], atol=1e-4)


def test_views_come_every_so_often(toy: tuple[Perturber, Scene]) -> None:
    turned, plain = Recorder(), Recorder()
    attacked(toy, mover=turned, views=TURNED)
    attacked(toy, mover=plain)
    same = [torch.allclose(*pair, atol=1e-6) for pair in zip(turned.gradients, plain.gradients, strict=True)]
    assert same == [False, True, False]
    assert not torch.allclose(turned.gradients[0], turned.gradients[2], atol=1e-4)


class Saved:
    """What a graph keeps of its forward pass; it lives as long as the graph does."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


def test_no_graph_outlives_its_iteration(toy: tuple[Perturber, Scene]) -> None:
    """Between two looks of the ensemble never more is kept for backward passes than before the first."""
    _, scene = toy
    saved: weakref.WeakSet[Saved] = weakref.WeakSet()
    peaks = [0]
    drive = margin_drive(scene)

    def save(tensor: Tensor) -> Saved:
        saved.add(one := Saved(tensor))
        peaks[-1] = max(peaks[-1], len(saved))
        return one

    class Watched(Drive):
        def pulled(self, surrogates: Any, image: Tensor, *rest: Any) -> Tensor:
            peaks.append(0)
            found = super().pulled(surrogates, image, *rest)
            peaks.append(0)
            return found

    with torch.autograd.graph.saved_tensors_hooks(save, lambda one: one.tensor):
        attacked(toy, drive=Watched(drive.loss, drive.rule, drive.weight), iterations=4)
    between = peaks[0:8:2]
    assert between[0] > 0
    assert between == between[:1] * 4


# Bounds ---------------------------------------------------------------------------------------------------------------


def test_no_latent_leaves_its_radius(toy: tuple[Perturber, Scene]) -> None:
    _, scene = toy
    path: list[Tensor] = []

    class Far(Mover):
        def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
            path.append(latents)
            return latents - 0.2 * gradient.sign()

    attacked(toy, mover=Far(), radius=0.1, iterations=4)
    sizes = torch.stack([(one - scene.latents).square().flatten(1).mean(1).sqrt() for one in path])
    assert (sizes <= 0.1 + 1e-6).all()
    torch.testing.assert_close(sizes[1:], torch.full((3, 3), 0.1))  # a step of 0.2 is brought back to 0.1
    free = attacked(toy, mover=Far(), iterations=1)
    assert ((free.latents - scene.latents).square().flatten(1).mean(1).sqrt() > 0.15).all()


def test_the_radius_is_of_what_acts_under_a_mask(toy: tuple[Perturber, Scene]) -> None:
    """Behind a mask of 0.3 a latent may go 0.1 / 0.3 before the picture's has gone 0.1."""
    perturber, scene = toy
    masked = replace(scene, mask=torch.full_like(scene.latents[:, :1], 0.3))

    class Far(Mover):
        def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
            return latents - gradient.sign()

    found = attacked((perturber, masked), mover=Far(), radius=0.1, iterations=1, keep="last")
    sizes = (found.latents - scene.latents).square().flatten(1).mean(1).sqrt()
    torch.testing.assert_close(sizes, torch.full((3,), 0.1))


class Angle(nn.Module):
    """The red of a picture as a direction: pictures ``x`` and ``y`` are ``2 - 2 cos(x - y)`` apart."""

    def maps(self, images: Tensor) -> list[Tensor]:
        return [torch.stack([images[:, 0].cos(), images[:, 0].sin()], dim=1)]


class Green(nn.Module):
    """A picture whose green is byte ``g`` fools it by ``g - 100``: two classes, of which 0 is the true one."""

    def forward(self, images: Tensor) -> Tensor:
        green = images[:, 1].mean((1, 2)) * 255 - 100
        return torch.stack([torch.zeros_like(green), green], dim=1)


def painted(prior: DiffusionPrior, looks: Sequence[tuple[int, int]]) -> Tensor:
    """The latents, at the last step, of even pictures that fool by a margin and have a byte of red."""
    images = torch.zeros(len(looks), 3, 8, 8)
    for image, (margin, red) in zip(images, looks, strict=True):
        image[0], image[1] = red / 255, (margin + 100) / 255
    return prior.alphas_cumprod[99].sqrt() * (images * 2 - 1)


class Script(Mover):
    """Goes where it was told to, a picture a column."""

    def __init__(self, prior: DiffusionPrior, looks: Sequence[Sequence[tuple[int, int]]]) -> None:
        self.steps = [painted(prior, row) for row in zip(*looks, strict=True)]

    def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
        return self.steps.pop(0)


def scripted(
    make: MakePrior, begin: tuple[int, int], looks: Sequence[Sequence[tuple[int, int]]], **budget: Any
) -> list[tuple[int, int, int]]:
    """Margin, red and iterations of each picture's best iterate; the pictures themselves have no red."""
    prior = make(lambda latents, *_: 0 * latents)
    model = Classifier(Green(), size=None, fingerprint="green")
    perceptual = PerceptualFeatures(Angle())
    perturber = Perturber(prior, {"green": model}, ("a", "b"), "{label}", perceptual)
    count = len(looks)
    path = PathPlan(steps=10, start=9, guidance_scale=1.0)
    scene = prepared(perturber, torch.zeros(count, 3, 8, 8), torch.zeros(count).long(), path, NOTHING)
    scene = replace(scene, latents=painted(prior, [begin] * count))
    mover = Script(prior, looks)
    found = attacked(
        (perturber, scene), mover=mover, path=path, iterations=len(looks[0]), **budget, drive=margin_drive(scene)
    )
    red, green = found.images[:, 0, 0, 0].double(), found.images[:, 1, 0, 0].double()
    torch.testing.assert_close(found.distance.double(), 2 - 2 * (red / 255).cos(), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.margin.double(), green - 100, rtol=0, atol=1e-3)
    rows = zip(found.margin.tolist(), red.tolist(), found.iterations.tolist(), strict=True)
    return [(round(margin), int(byte), taken) for margin, byte, taken in rows]


def red_apart(red: int) -> float:
    return float(2 - 2 * torch.tensor(red / 255).double().cos()) + 1e-5


def test_the_best_iterate_fools_most_and_then_is_nearest(toy_prior: MakePrior) -> None:
    looks = [
        [(2, 50), (4, 90), (3, 0)],  # the margin comes first
        [(-9, 10), (-8, 5), (-7, 7)],  # all worse than the beginning
        [(-3, 10), (-3, 20), (-4, 0)],  # as good as the beginning, and nearer
    ]
    assert scripted(toy_prior, (-3, 30), looks) == [(4, 90, 3), (-3, 30, 3), (-3, 10, 3)]


def test_the_last_iterate_is_kept_where_that_is_asked(toy_prior: MakePrior) -> None:
    looks = [
        [(9, 10), (4, 90), (2, 200)],  # the best is long past
        [(-2, 10), (-3, 20), (-9, 30)],
    ]
    assert scripted(toy_prior, (-3, 30), looks, keep="last") == [(2, 200, 3), (-9, 30, 3)]
    assert scripted(toy_prior, (-3, 30), looks, keep="best") == [(9, 10, 3), (-2, 10, 3)]
    # Left alone from a margin of 4 on, the last is the one that reached it.
    assert scripted(toy_prior, (-3, 30), [[(1, 10), (4, 90), (9, 0)]], keep="last", stop_margin=4.0) == [(4, 90, 2)]


def test_a_picture_whose_margin_is_reached_moves_no_more(toy_prior: MakePrior) -> None:
    looks = [
        [(5, 90), (9, 0), (9, 0)],  # enough at once: what lies further on is not seen
        [(4, 10), (6, 60), (9, 0)],
        [(1, 10), (2, 20), (4, 30)],  # never enough
    ]
    assert scripted(toy_prior, (-3, 0), looks, stop_margin=4.5) == [(5, 90, 1), (6, 60, 2), (4, 30, 3)]
    assert scripted(toy_prior, (7, 0), looks, stop_margin=4.5) == [(7, 0, 0)] * 3


def test_a_picture_that_moves_no_more_is_neither_denoised_nor_shown_to_a_surrogate(
    toy: tuple[Perturber, Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of three has a margin of its own to reach; the others go on as if it were not there."""
    perturber, scene = toy
    free = attacked(toy, iterations=4)
    margin = float(free.margin.max()) - 1e-3
    first = int(free.margin.argmax())
    denoised, shown = [], []
    decode, model = perturber.prior.decode, next(iter(perturber.surrogates.values()))
    see = model.logits

    def decoded(latents: Tensor) -> Tensor:
        denoised.append(len(latents))
        return decode(latents)

    def seen(images: Tensor) -> Tensor:
        shown.append(len(images))
        return see(images)

    monkeypatch.setattr(perturber.prior, "decode", decoded)
    monkeypatch.setattr(model, "logits", seen)
    stopped = attacked(toy, iterations=8, stop_margin=margin)
    taken = stopped.iterations
    assert int(taken[first]) == int(taken.min()) < 8
    moving = [int((taken >= number).sum()) for number in range(int(taken.max()) + 2)]
    assert denoised == moving[:-1]
    # Margins of what was denoised are read, then the loss of what is not left alone.
    assert shown == [count for both in pairwise(moving) for count in both if count]
    others = torch.arange(len(scene.images)) != first
    alone = attacked((perturber, rows_of(scene, others.nonzero()[:, 0].tolist())), iterations=8, stop_margin=margin)
    torch.testing.assert_close(stopped.latents[others], alone.latents)


def test_beyond_the_perceptual_bound_is_worse_than_within(toy_prior: MakePrior) -> None:
    looks = [
        [(9, 101), (1, 100), (8, 200)],  # 100 is just within
        [(-9, 99), (9, 200), (9, 200)],  # fools only beyond: the beginning is the best within
        [(9, 200), (2, 90), (2, 80)],
    ]
    cap = red_apart(100)
    assert scripted(toy_prior, (-3, 50), looks, perceptual=cap) == [(1, 100, 3), (-3, 50, 3), (2, 80, 3)]


def test_a_margin_beyond_the_perceptual_bound_is_not_reached(toy_prior: MakePrior) -> None:
    """It would be left alone with a picture that is worse than any within; once within, it is."""
    looks = [
        [(9, 120), (6, 100), (9, 0)],
        [(-2, 90), (9, 200), (3, 80)],
        [(9, 190), (3, 170), (9, 180)],  # never within: the nearest
    ]
    found = scripted(toy_prior, (7, 220), looks, perceptual=red_apart(100), stop_margin=4.5)
    assert found == [(6, 100, 2), (3, 80, 3), (3, 170, 3)]


# What is lost on the way ----------------------------------------------------------------------------------------------


def test_what_the_way_loses_is_added_back(toy_prior: MakePrior) -> None:
    """An unmoved latent gives the picture itself; a moved one the picture and the change of what is rendered."""
    prior = toy_prior(wave)
    perturber = perturber_of(prior, [linear(1), linear(2)])
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(3)) * 0.5 + 0.25
    path = replace(PATH, residual=True)
    scene = prepared(perturber, images, LABELS, path, NOTHING)
    assert (scene.rebuilt - images).abs().max() > 0.02  # there is something to add
    still = attacked((perturber, scene), path=path, drive=margin_drive(scene, weight=lambda _: 0.0))
    assert torch.equal(still.images, to_bytes(images))
    moved = attacked((perturber, scene), path=path)
    before, after = (
        render(prior, latents, scene.condition, scene.nulls, path).image for latents in (scene.latents, moved.latents)
    )
    assert (after - before).abs().max() > 0.05
    assert (moved.images.int() - to_bytes(images + after - before).int()).abs().max() <= 1


# Ensembles ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("unit", [True, False])
def test_the_mean_is_the_same_at_the_image_and_at_the_latent(toy: tuple[Perturber, Scene], unit: bool) -> None:
    """Pulling back is linear."""
    image, latent = (
        attacked(toy, drive=margin_drive(toy[1], in_latent=in_latent, unit=unit)) for in_latent in (False, True)
    )
    torch.testing.assert_close(image.latents, latent.latents, rtol=0, atol=1e-5)
    assert not torch.allclose(image.latents, toy[1].latents, atol=1e-2)


@pytest.mark.parametrize("in_latent", [False, True])
def test_mean_logits_are_those_of_one_model(toy: tuple[Perturber, Scene], in_latent: bool) -> None:
    """The mean of two linear models is the linear one of their mean weights."""
    perturber, scene = toy
    one, other = (model.model[1] for model in perturber.surrogates.values())  # type: ignore[index]
    head = nn.Linear(192, 3)
    head.weight.data = (one.weight + other.weight) / 2
    head.bias.data = (one.bias + other.bias) / 2
    single = Classifier(nn.Sequential(nn.Flatten(), head), size=8, fingerprint="mean")
    alone, together = Recorder(), Recorder()
    attacked((replace(perturber, surrogates={"mean": single}), scene), mover=alone)
    drive = margin_drive(scene, of_logits=True, in_latent=in_latent)
    attacked(toy, drive=drive, mover=together)
    torch.testing.assert_close(together.gradients[0], alone.gradients[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("in_latent", "each"), [(False, 1), (True, 3)])
def test_one_pull_back_serves_all_models(prior: DiffusionPrior, in_latent: bool, each: int) -> None:
    prior = prior.float()
    perturber = perturber_of(prior, [linear(seed, side=16) for seed in (1, 2, 3)])
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    path = PathPlan(steps=4, start=3, guidance_scale=1.0)
    scene = prepared(perturber, images, torch.tensor([0, 1]), path, NOTHING)
    calls: list[int] = []
    handle = prior.unet.register_full_backward_hook(lambda *_: calls.append(1))
    attacked((perturber, scene), drive=margin_drive(scene, in_latent=in_latent), path=path, iterations=3)
    handle.remove()
    assert len(calls) == 3 * each


def test_models_on_which_nothing_is_gained_weigh_alike_under_random_views(toy: tuple[Perturber, Scene]) -> None:
    """Nothing moves, so that no margin does; the losses do, with every second iteration's views."""
    rule, weights, losses = Improvement(), [], []

    def note(_: nn.Module, given: tuple[Tensor, ...], found: Combined) -> None:
        weights.append(found.weights)
        losses.append(given[1])

    rule.register_forward_hook(note)
    attacked(toy, drive=margin_drive(toy[1], rule=rule), mover=Recorder(), views=TURNED, iterations=6)
    moved = torch.stack(losses).diff(dim=0)
    assert (moved[:, 0] - moved[:, 1]).abs().max() > 0.01  # and not by the same for both
    assert all(torch.equal(found, torch.full((2, 3), 0.5)) for found in weights)


# Terms ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_heads", [1.0, 0.5])
def test_attention_is_spread_on_a_real_unet(worded_prior: DiffusionPrior, keep_heads: float) -> None:
    """And no picture depends on its batch-mates, the heads that are dropped included."""
    names = ("long red hair", "short black hair", "long blond hair")
    perturber = perturber_of(worded_prior, [linear(1, side=64)], names)
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = tuple(layer for layer in attention_layers(worded_prior.unet) if layer.kind == "cross")
    recording = RecordingPlan(layers, window=(0.5, 1.0), keep_heads=keep_heads)
    path = PathPlan(steps=4, start=2, guidance_scale=1.0)
    results = []
    for rows in ([0, 1], [1]):
        scene = prepared(perturber, images[rows], torch.tensor([0, 1])[rows], path, recording)
        entropy = Entry(name="entropy", group="entropy", term=AttentionEntropy(), scale="first", rows=len(rows))
        seen: list[Iteration] = []
        found = attacked(
            (perturber, scene),
            drive=margin_drive(scene, weight=lambda _: 0.0),
            objective=Objective([entropy], Fixed({"entropy": 1.0})),
            path=path,
            recording=recording,
            numbers=rows,
            watch=seen,
            iterations=4,
        )
        assert all(step.parts["entropy"].shape == (len(rows),) for step in seen)
        assert not any(step.parts["entropy"].requires_grad for step in seen)
        results.append((torch.stack([step.parts["entropy"] for step in seen]), found.latents))
    (both, latents), (alone, own) = results
    if keep_heads == 1:
        assert (both[-1] < both[0]).all()
    torch.testing.assert_close(both[:, 1:], alone, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(latents[1:], own, rtol=0, atol=1e-4)


class Witness(Term):
    """Keeps what terms are given and asks for nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Candidate] = []

    def forward(self, candidate: Candidate) -> Tensor:
        self.given.append(candidate)
        return torch.zeros(len(candidate.image))


def witnessed(scenery: tuple[Perturber, Scene], *others: Term, **options: Any) -> list[Candidate]:
    """What the terms of each iteration are given, where nothing moves."""
    witness = Witness()
    named = {type(term).__name__: term for term in (witness, *others)}
    entries = [Entry(name=name, group=name, term=term) for name, term in named.items()]
    objective = Objective(entries, Fixed(dict.fromkeys(named, 1.0)))
    attacked(scenery, objective=objective, mover=Recorder(), **options)
    return witness.given


def test_terms_count_what_is_inside_the_mask_alone(toy: tuple[Perturber, Scene]) -> None:
    """The picture differs from what it is compared with at its right edge alone; the mask is its left half."""
    perturber, scene = toy
    other = scene.rebuilt.clone()
    other[..., 6:] = 0.0
    mask = torch.zeros(3, 1, 8, 8)
    mask[..., :4] = 1.0
    found = []
    for where in (mask, None):
        seen: list[Iteration] = []
        witnessed((perturber, replace(scene, rebuilt=other, mask=where)), Frequency(), watch=seen, iterations=1)
        found.append(seen[0].parts["Frequency"])
    assert found[0].abs().max() < 1e-6
    assert found[1].min() > 0.01


@pytest.mark.parametrize("residual", [True, False])
def test_terms_compare_with_what_nothing_changed_gives(toy_prior: MakePrior, residual: bool) -> None:
    """With what was lost added back it is the picture itself, without it what the way returns to; never out of [0, 1].

    What is lost is that of the decoded picture before it is clipped, or the sum would not be the picture.
    """
    prior = toy_prior(wave)
    perturber, path = perturber_of(prior, [linear(1)]), replace(PATH, residual=residual)
    images = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(3)).round()
    scene = prepared(perturber, images, LABELS, path, NOTHING)
    decoded = render(prior, scene.latents, scene.condition, scene.nulls, path).image
    assert decoded.min() < -0.02
    assert decoded.max() > 1.02
    (given,) = witnessed((perturber, scene), path=path, iterations=1)
    if residual:
        assert scene.residual is not None
        torch.testing.assert_close(scene.residual, images - decoded)
        assert torch.equal(given.source, images)
        torch.testing.assert_close(given.image, given.source, rtol=0, atol=1e-6)
    else:
        assert scene.residual is None
        assert torch.equal(given.source, decoded.clamp(0, 1))
        assert torch.equal(given.image, decoded)


WORDED = PathPlan(steps=4, start=2, guidance_scale=1.0)


def all_words(prior: DiffusionPrior, **more: Any) -> RecordingPlan:
    """All cross-attention, and that under the exchanged names."""
    layers = tuple(layer for layer in attention_layers(prior.unet) if layer.kind == "cross")
    return RecordingPlan(layers, with_rival=True, **more)


def worded(prior: DiffusionPrior, recording: RecordingPlan) -> tuple[Perturber, Scene]:
    """Two pictures, each the other's rival: one of a name of three words, one of one word."""
    model = linear(1, classes=2, side=64)
    perturber = replace(perturber_of(prior, [model], ("long red hair", "bearded")), distractor="confusion")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return perturber, prepared(perturber, images, torch.tensor([0, 1]), WORDED, recording)


def looked_at(scenery: tuple[Perturber, Scene], recording: RecordingPlan, **options: Any) -> list[AttentionView]:
    """The attention that the terms of each iteration are given."""
    given = witnessed(scenery, path=WORDED, recording=recording, **options)
    return [one.attention for one in given if one.attention is not None]


def places(tokens: Tensor | None) -> list[list[int]]:
    assert tokens is not None
    return [row.nonzero()[:, 0].tolist() for row in tokens]


def test_every_branch_is_read_where_its_own_prompt_has_the_names(worded_prior: DiffusionPrior) -> None:
    """``START a person with long red hair and bearded``: the names stand at 4 to 6 and at 8.

    Exchanged they stand at 4 and at 6 to 8. Heads are averaged, and the three branches are three different ways.
    """
    recording = all_words(worded_prior)
    perturber, scene = worded(worded_prior, recording)
    moved = scene.latents + torch.randn(scene.latents.shape, generator=torch.Generator().manual_seed(1))
    (view,) = looked_at((perturber, replace(scene, latents=moved)), recording, iterations=1)
    assert view.distractor is not None
    for branch in (view.perturbed, view.clean):
        assert (places(branch.label), places(branch.rival)) == ([[4, 5, 6], [4]], [[8], [6, 7, 8]])
    assert places(view.distractor.label) == [[4], [4, 5, 6]]
    assert places(view.distractor.rival) == [[6, 7, 8], [8]]

    after = render(worded_prior, moved, scene.condition, (None, None), WORDED, recording.layers).steps
    branches = {"perturbed": after, "clean": scene.clean, "distractor": scene.rival}
    for name, steps in branches.items():
        assert steps is not None
        for read, raw in zip(getattr(view, name).steps, steps, strict=True):
            for layer in recording.layers:
                torch.testing.assert_close(read[layer], raw[layer].mean(1), rtol=0, atol=1e-6)
    for one, other in combinations(branches, 2):
        maps = [getattr(view, name).steps[0][recording.layers[-1]] for name in (one, other)]
        assert (maps[0] - maps[1]).abs().max() > 1e-4


def heads_of(mean: Tensor, heads: Tensor) -> list[int]:
    """Of which of ``heads (B, 4, HW, T)`` a map is the mean."""
    some = [list(kept) for count in range(1, 5) for kept in combinations(range(4), count)]
    (found,) = [kept for kept in some if (heads[:, kept].mean(1) - mean).abs().max() < 1e-6]
    return found


def test_heads_are_drawn_anew_at_every_iteration_by_the_seed(worded_prior: DiffusionPrior) -> None:
    def drawn(seed: int, **more: Any) -> list[list[list[int]]]:
        """The heads of every layer that each iteration's clean branch reads; the perturbed one, unmoved, the same."""
        recording = all_words(worded_prior, **more)
        perturber, scene = worded(worded_prior, recording)
        found = []
        for view in looked_at((perturber, scene), recording, seed=seed, iterations=3):
            read, same = view.clean.steps[0], view.perturbed.steps[0]
            found.append([heads_of(read[layer], scene.clean[0][layer]) for layer in recording.layers])
            assert found[-1] == [heads_of(same[layer], scene.clean[0][layer]) for layer in recording.layers]
        return found

    first, again, other = (drawn(seed, keep_heads=0.5) for seed in (7, 7, 8))
    assert first == again
    assert all(one != another for one, another in combinations([*first, *other], 2))
    assert drawn(7) == [[[0, 1, 2, 3]] * len(first[0])] * 3


def test_heads_count_by_their_weights_in_every_branch(worded_prior: DiffusionPrior) -> None:
    recording = all_words(worded_prior, head_weights=(4.0, 1.0, 2.0, 3.0))
    perturber, scene = worded(worded_prior, recording)
    (view,) = looked_at((perturber, scene), recording, iterations=1)
    assert view.distractor is not None
    assert scene.rival is not None
    weights = torch.tensor([0.4, 0.1, 0.2, 0.3])[:, None, None]
    for branch, steps in ((view.perturbed, scene.clean), (view.clean, scene.clean), (view.distractor, scene.rival)):
        for read, raw in zip(branch.steps, steps, strict=True):
            for layer in recording.layers:
                torch.testing.assert_close(read[layer], (weights * raw[layer]).sum(1), rtol=0, atol=1e-6)
                assert (read[layer] - raw[layer].mean(1)).abs().max() > 1e-5


class Broken(Term):
    """Not a number for the second picture, from the second iteration on."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, candidate: Candidate) -> Tensor:
        self.calls += 1
        values = candidate.image.flatten(1).mean(1)
        return values * values.new_tensor([1.0, 1.0 if self.calls < 2 else torch.nan, 1.0])


class Whole(Term):
    """The same, always a number."""

    def forward(self, candidate: Candidate) -> Tensor:
        return candidate.image.flatten(1).mean(1)


@pytest.mark.parametrize("step", [STEP, replace(STEP, kind="momentum")], ids=["adamw", "sign"])
def test_a_picture_whose_gradient_is_not_finite_is_left_alone_and_the_others_go_on(
    toy: tuple[Perturber, Scene], step: StepPlan
) -> None:
    def run(term: Term, iterations: int) -> Attacked:
        objective = Objective([Entry(name="it", group="it", term=term)], Fixed({"it": 1.0}))
        return attacked(toy, objective=objective, mover=mover_of(step), iterations=iterations, keep="last")

    found, whole, once = run(Broken(), 4), run(Whole(), 4), run(Whole(), 1)
    assert found.broken.tolist() == [False, True, False]
    assert found.iterations.tolist() == [4, 1, 4]
    assert torch.equal(found.latents[[0, 2]], whole.latents[[0, 2]])
    assert torch.equal(found.latents[1], once.latents[1])
    assert not whole.broken.any()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_a_picture_that_is_not_finite_is_never_kept(toy: tuple[Perturber, Scene], keep: str) -> None:
    class Lost(Mover):
        """Sends the second picture's latent nowhere."""

        def __call__(self, latents: Tensor, gradient: Tensor) -> Tensor:
            stepped = latents - 0.05 * gradient.sign()
            stepped[1] = torch.nan
            return stepped

    found = attacked(toy, mover=Lost(), keep=keep)
    assert found.broken.tolist() == [False, True, False]
    assert found.iterations.tolist() == [3, 1, 3]
    assert torch.equal(found.images[1], to_bytes(toy[1].rebuilt)[1])
    assert torch.equal(found.latents[1], toy[1].latents[1])
    assert found.latents.isfinite().all()


def test_pictures_that_are_all_broken_are_what_they_were(toy: tuple[Perturber, Scene]) -> None:
    drive = margin_drive(toy[1], weight=lambda _: torch.nan)
    found = attacked(toy, drive=drive)
    assert found.broken.all()
    assert found.iterations.tolist() == [0, 0, 0]
    assert torch.equal(found.images, to_bytes(toy[1].rebuilt))


@pytest.mark.parametrize("goal", [None, torch.tensor([1, 2, 0])], ids=["any", "goal"])
def test_pictures_that_go_on_do_not_notice_that_one_has_stopped(
    worded_prior: DiffusionPrior, goal: Tensor | None
) -> None:
    """Under guidance, a mask, what the way loses added back, and terms on attention of both kinds."""
    names = ("long red hair", "short black hair", "long blond hair")
    perturber = perturber_of(worded_prior, [linear(1, side=64), linear(2, side=64)], names)
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    layers = tuple(attention_layers(worded_prior.unet))
    recording = RecordingPlan(layers, window=(0.5, 1.0), keep_heads=0.5)
    path = PathPlan(steps=4, start=2, guidance_scale=2.0, residual=True)

    def run(rows: list[int], stop_margin: float | None) -> Attacked:
        scene = prepared(perturber, images[rows], torch.tensor([0, 1, 2])[rows], path, recording)
        mask = torch.ones_like(scene.latents[:, :1])
        mask[..., 0] = 0
        scene = replace(scene, mask=mask)
        terms = {"entropy": AttentionEntropy(), "layout": SelfAttention()}
        entries = [
            Entry(name=name, group=name, term=term, scale="first", rows=len(rows)) for name, term in terms.items()
        ]
        return attacked(
            (perturber, scene),
            drive=margin_drive(scene, rule=Agreement()),
            objective=Objective(entries, Fixed(dict.fromkeys(terms, 0.1))),
            path=path,
            recording=recording,
            goal=None if goal is None else goal[rows],
            numbers=rows,
            iterations=5,
            stop_margin=stop_margin,
        )

    everyone = [0, 1, 2]
    free = run(everyone, None).margin
    enough = float(free.sort().values[1:].mean())  # one picture comes so far, the others do not
    together = run(everyone, enough)
    assert sorted((together.iterations < 5).tolist()) == [False, False, True]
    for row in everyone:
        alone = run([row], enough)
        assert alone.iterations[0] == together.iterations[row]
        torch.testing.assert_close(alone.latents[0], together.latents[row], rtol=0, atol=1e-4)
