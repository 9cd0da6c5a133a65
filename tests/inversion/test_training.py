"""The training loop: what a step draws, what it moves, and that it starts again where it was stopped."""

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.errors import InvalidSetting, NotFinite
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.batches import rows_of_step
from diffaudit.inversion.candidates import draw_candidate
from diffaudit.inversion.embedding import ManifoldEmbedding, TableEmbedding
from diffaudit.inversion.generator import add_lora
from diffaudit.inversion.plans import ImagePlan, StagePlan
from diffaudit.inversion.state import TrainingState, stage_optimiser
from diffaudit.inversion.training import StepReport, train_stage
from diffaudit.models.prior import DiffusionPrior
from diffaudit.objective import Entry, Objective
from diffaudit.study.checkpoints import Checkpoint
from diffaudit.terms import Diversity, IdentityCosine, LearnedCentre, PriorNoise
from diffaudit.terms.base import Term
from diffaudit.weighting import Fixed, JacobianDescent, Uncertainty
from diffaudit.weighting.gradient import GradientWeighting

ROLLOUT = ImagePlan(mode="rollout", steps=2, gradient_steps=1, strength=0.9, guidance_scale=1.5)
ONE_STEP = replace(ROLLOUT, mode="one_step", strength=0.4)
EMBED = StagePlan(
    name="embed",
    trains=("embedding",),
    steps=4,
    rates={"embedding": 0.05},
    batch=3,
    first_step=0,
    warmup=0,
    clip=1.0,
    weight_decay=0.0,
)
ADAPT = replace(EMBED, trains=("lora",), rates={"lora": 0.01})


@pytest.fixture
def state(attacker: Attacker) -> TrainingState:
    add_lora(attacker.prior, rank=2, alpha=4, seed=0)
    return started(attacker)


def started(attacker: Attacker, objective: Objective | None = None) -> TrainingState:
    """A state at its start, by default under the identity term alone."""
    pull = Objective([Entry(name="id", group="id", term=IdentityCosine())], Fixed({"id": 1.0}))
    return TrainingState(TableEmbedding(attacker.pseudo_anchors(4)), attacker, objective or pull)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn(
    state: TrainingState,
    *,
    plan: StagePlan = EMBED,
    image: ImagePlan = ROLLOUT,
    seed: int = 0,
    weight: float | None = 1.0,
) -> Candidate:
    generator, classes = seeded(seed), len(state.attacker.classes)
    rows = rows_of_step(classes, plan, 0, each=1, seed=seed, generator=generator)
    return draw_candidate(state, plan, image, state.embedding, rows, generator, step=0, prior_weight=weight)


class Witness(Term):
    """The identity term, which remembers what it was shown."""

    lower_bound = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Candidate] = []

    def forward(self, candidate: Candidate) -> Tensor:
        self.seen.append(candidate)
        value: Tensor = IdentityCosine()(candidate)
        return value


def trained(
    state: TrainingState,
    plan: StagePlan,
    *,
    seed: int = 0,
    begin: int = 0,
    optimiser: torch.optim.Optimizer | None = None,
    pull: Callable[[Tensor], Tensor] | None = None,
    weights: dict[str, float] | None = None,
) -> tuple[list[Candidate], list[StepReport]]:
    witness, reports = Witness(), list[StepReport]()
    entries = [Entry(name="id", group="id", term=witness)]
    if weights is not None:
        entries.append(Entry(name="prior", group="prior", term=PriorNoise()))
    train_stage(
        replace(state, objective=Objective(entries, Fixed(weights or {"id": 1.0}))),
        plan,
        ROLLOUT,
        optimiser or stage_optimiser(state, plan),
        pull or state.embedding,
        seed=seed,
        begin=begin,
        on_step=lambda report, _: reports.append(report),
    )
    return witness.seen, reports


@pytest.mark.parametrize(("per_class", "visits"), [(None, 2), (1, 1), (2, 2)])
def test_classes_come_in_pairs_where_a_term_compares_classmates(
    attacker: Attacker, per_class: int | None, visits: int
) -> None:
    """Else diversity would be 0 wherever a batch is no larger than the number of classes."""
    witness = Witness()
    entries = [Entry(name="div", group="perc", term=Diversity()), Entry(name="id", group="id", term=witness)]
    state = started(attacker, Objective(entries, Fixed({"perc": 1.0, "id": 1.0})))
    plan, image = replace(EMBED, batch=4, steps=1), replace(ROLLOUT, per_class=per_class)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pictures that are alone
        train_stage(state, plan, image, stage_optimiser(state, plan), state.embedding, seed=0)
    (candidate,) = witness.seen
    assert set(candidate.target.unique(return_counts=True)[1].tolist()) == {visits}


def test_sigmas_learn_at_a_tenth_of_the_rate_or_at_their_own(attacker: Attacker) -> None:
    entries = [Entry(name="id", group="id", term=IdentityCosine())]
    state = started(attacker, Objective(entries, Uncertainty(["id"])))
    fast = stage_optimiser(state, EMBED).param_groups
    own = stage_optimiser(replace(state, sigma_rate=0.07), EMBED).param_groups
    assert [group["base_rate"] for group in fast] == [EMBED.rates["embedding"], 0.1 * EMBED.rates["embedding"]]
    assert [group["base_rate"] for group in own] == [EMBED.rates["embedding"], 0.07]


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_a_batch_is_as_large_whatever_the_number_of_classes(attacker: Attacker, classes: int) -> None:
    """Hence memory is flat in the number of classes: nothing of a step but the embedding table grows with it."""
    few = replace(attacker, classes=attacker.classes[:classes])
    candidate = drawn(started(few))
    assert all(len(value) == EMBED.batch for value in vars(candidate).values() if value is not None)


def test_the_same_seed_gives_the_same_batch_and_another_another(state: TrainingState) -> None:
    first, again, other = drawn(state, seed=1), drawn(state, seed=1), drawn(state, seed=2)
    for name in ("image", "source", "target", "noise", "prediction", "progress"):
        assert torch.equal(getattr(first, name), getattr(again, name)), name
    assert not torch.equal(first.source, other.source)
    assert first.noise is not None
    assert other.noise is not None
    assert not torch.equal(first.noise, other.noise)


def test_the_image_is_what_the_classifier_and_the_encoder_saw(state: TrainingState) -> None:
    candidate, attacker = drawn(state), state.attacker
    torch.testing.assert_close(candidate.logits, attacker.classifier.logits(candidate.image))
    torch.testing.assert_close(candidate.embedding, attacker.encoder(candidate.image))


def test_the_target_may_be_shown_a_random_view_of_the_image(
    state: TrainingState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffaudit.inversion.candidates.random_view", lambda images, generator: images.flip(-1))
    plain, viewed = drawn(state), drawn(state, image=replace(ROLLOUT, random_view=True))
    assert torch.equal(viewed.image, plain.image)
    assert torch.allclose(viewed.logits, state.attacker.classifier.logits(plain.image.flip(-1)))
    assert not torch.allclose(viewed.logits, plain.logits)


def test_the_anchor_is_the_label_embedding_detached(state: TrainingState) -> None:
    candidate = drawn(state)
    rows = torch.searchsorted(state.attacker.classes, candidate.target)
    assert candidate.anchor is not None
    assert not candidate.anchor.requires_grad
    torch.testing.assert_close(candidate.anchor, state.embedding(rows).detach())


def test_the_own_draw_moves_the_adapters_and_not_the_label_embedding(state: TrainingState) -> None:
    both = replace(EMBED, trains=("lora", "embedding"), rates={"lora": 0.1, "embedding": 0.1}, batch=8)
    stage_optimiser(state, both)
    prediction = drawn(state, plan=both).prediction
    assert prediction is not None
    prediction.square().sum().backward()
    groups = state.groups()
    assert all(parameter.grad is None for parameter in groups["embedding"])
    assert any(parameter.grad is not None and parameter.grad.abs().max() > 0 for parameter in groups["lora"])


def test_the_pseudo_draw_moves_the_label_embedding(state: TrainingState) -> None:
    stage_optimiser(state, EMBED)
    prediction = drawn(state, plan=replace(EMBED, batch=8)).prediction
    assert prediction is not None
    prediction.square().sum().backward()
    groups = state.groups()
    (table,) = groups["embedding"]
    assert table.grad is not None
    assert table.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in groups["lora"])


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor]]:
    """What the prior was asked: pictures encoded, and embeddings it was conditioned on."""
    calls: dict[str, list[Tensor]] = {"encode": [], "condition": []}
    encode, condition = DiffusionPrior.encode, DiffusionPrior.condition

    def encoding(self: DiffusionPrior, images: Tensor) -> Tensor:
        calls["encode"].append(images)
        return encode(self, images)

    def conditioning(self: DiffusionPrior, embeddings: Tensor | None, count: int, prompt: str = "") -> object:
        if embeddings is not None:
            calls["condition"].append(embeddings.detach())
        return condition(self, embeddings, count, prompt)

    monkeypatch.setattr(DiffusionPrior, "encode", encoding)
    monkeypatch.setattr(DiffusionPrior, "condition", conditioning)
    return calls


def test_the_own_draw_shows_a_picture_under_its_own_embedding(
    state: TrainingState, told: dict[str, list[Tensor]]
) -> None:
    drawn(state, plan=replace(ADAPT, batch=8))
    torch.testing.assert_close(told["condition"][-1], state.attacker.encoder(told["encode"][-1]))


def test_the_pseudo_draw_shows_pictures_that_the_target_takes_for_the_class(
    state: TrainingState, told: dict[str, list[Tensor]]
) -> None:
    attacker = state.attacker
    target = drawn(state, plan=replace(EMBED, batch=8)).target
    rows = torch.searchsorted(attacker.classes, target)
    torch.testing.assert_close(told["condition"][-1], state.embedding(rows).detach())
    shown = (told["encode"][-1] * 255).round().byte()
    for picture, best in zip(shown, attacker.public.best(target, 16), strict=True):
        assert (attacker.public.images[best] == picture).flatten(1).all(1).any()


def test_a_prior_shown_someone_elses_embedding_learns_to_ignore_it() -> None:
    """The fault in the first sketches, in closed form: least squares of the noise on the noisy latent and embedding.

    With the picture's own embedding e = z0 the noise is (z - a e) / s; with a stranger's, e says nothing of it.
    """
    generator, count, a, s = seeded(0), 200_000, 0.6, 0.8
    own, stranger, noise = torch.randn(3, count, generator=generator, dtype=torch.float64)
    noisy = a * own + s * noise

    def learned(embedding: Tensor) -> list[float]:
        solution: Tensor = torch.linalg.lstsq(torch.stack([noisy, embedding], 1), noise[:, None]).solution
        return solution[:, 0].tolist()

    assert learned(own) == pytest.approx([1 / s, -a / s])
    assert learned(stranger) == pytest.approx([s, 0], abs=0.01)


def test_the_prior_is_watched_at_weight_zero_and_left_out_without_a_term(state: TrainingState) -> None:
    stage_optimiser(state, EMBED)
    assert drawn(state, weight=None).prediction is None
    watched, weighed = drawn(state, weight=0.0), drawn(state, weight=0.3)
    assert watched.prediction is not None
    assert weighed.prediction is not None
    assert not watched.prediction.requires_grad
    assert weighed.prediction.requires_grad
    assert torch.equal(watched.prediction, weighed.prediction)


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_a_stage_runs_whatever_the_weight_of_the_prior(state: TrainingState, weight: float) -> None:
    _, reports = trained(state, EMBED, weights={"id": 1.0, "prior": weight})
    assert all(report.parts["prior"] > 0 for report in reports)


def test_one_step_looks_at_times_below_the_strength(state: TrainingState, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    guided = DiffusionPrior.guided_epsilon

    def watching(self: DiffusionPrior, latents: Tensor, timesteps: Tensor, *rest: object) -> Tensor:
        asked.extend(timesteps.tolist())
        return guided(self, latents, timesteps, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(DiffusionPrior, "guided_epsilon", watching)
    drawn(state, plan=replace(EMBED, batch=64), image=ONE_STEP)
    assert len(asked) == 64
    assert max(asked) < 0.4 * state.attacker.prior.num_train_timesteps
    assert len(set(asked)) > 30


@pytest.mark.parametrize("plan", [EMBED, ADAPT])
def test_a_step_lowers_the_loss_of_its_own_draw(state: TrainingState, plan: StagePlan) -> None:
    small = replace(plan, steps=1, rates=dict.fromkeys(plan.trains, 1e-3))
    goal = nn.functional.normalize(torch.randn(5, 6, generator=seeded(3)), dim=1)
    values = [trained(state, small, pull=lambda rows: goal[rows])[1][0].value for _ in range(3)]
    assert values[0] > values[1] > values[2]


def test_a_step_draws_from_its_number_in_the_run_alone(state: TrainingState) -> None:
    plan = replace(EMBED, batch=len(state.attacker.classes))  # each step begins an order of the classes
    whole, _ = trained(state, plan)
    late, _ = trained(state, replace(plan, first_step=2, steps=2))
    resumed, _ = trained(state, plan, begin=3)
    other, _ = trained(state, plan, seed=1)
    assert torch.equal(late[0].source, whole[2].source)
    assert torch.equal(late[1].target, whole[3].target)
    assert torch.equal(resumed[0].source, whole[3].source)
    assert not torch.equal(whole[0].source, whole[1].source)
    assert not torch.equal(whole[0].source, other[0].source)


def test_a_stage_that_goes_on_ends_with_the_same_bits(state: TrainingState) -> None:
    begun = [parameter.detach().clone() for parameter in state.embedding.parameters()]
    trained(state, EMBED)
    wanted = [parameter.detach().clone() for parameter in state.embedding.parameters()]
    with torch.no_grad():
        for parameter, value in zip(state.embedding.parameters(), begun, strict=True):
            parameter.copy_(value)
    optimiser = stage_optimiser(state, EMBED)

    class PowerCutError(Exception):
        pass

    def cut(report: StepReport, _: torch.optim.Optimizer) -> None:
        if report.step == 1:
            raise PowerCutError

    with pytest.raises(PowerCutError):
        train_stage(state, EMBED, ROLLOUT, optimiser, state.embedding, seed=0, on_step=cut)
    trained(state, EMBED, begin=2, optimiser=optimiser)
    assert all(torch.equal(a, b) for a, b in zip(state.embedding.parameters(), wanted, strict=True))
    assert not torch.equal(wanted[0], begun[0])


def test_the_rate_warms_up_and_decays() -> None:
    plan = replace(EMBED, steps=12, warmup=4)
    assert [plan.rate_factor(step) for step in (0, 1, 3, 4)] == [0.25, 0.5, 1.0, 1.0]
    assert plan.rate_factor(8) == pytest.approx(0.5)
    assert plan.rate_factor(11) == pytest.approx(0.5 * (1 + math.cos(7 / 8 * math.pi)))
    assert EMBED.rate_factor(0) == 1.0


def test_in_a_hybrid_stage_the_attack_counts_as_much_as_the_label(state: TrainingState) -> None:
    """Of four steps the first is the source's own: no gradient reaches the label embedding or asks for the class."""
    plan = replace(EMBED, condition="hybrid")
    shares = [0.0, 0.5 - 0.5 * math.cos(math.pi / 4), 0.5, 0.5 + 0.5 * math.cos(math.pi / 4)]
    assert [plan.attack_shares(step)["id"] for step in range(4)] == pytest.approx(shares)
    candidates, reports = trained(state, plan)
    assert [report.weights["id"] for report in reports] == pytest.approx(shares)
    plain = [float(IdentityCosine()(candidate).detach().mean()) for candidate in candidates]
    assert [report.value for report in reports] == pytest.approx([a * b for a, b in zip(shares, plain, strict=True)])
    assert reports[0].gradient_norm == 0
    assert EMBED.attack_shares(2) == {}


def test_each_group_has_its_own_rate(state: TrainingState) -> None:
    plan = replace(EMBED, trains=("lora", "embedding"), rates={"lora": 0.2, "embedding": 0.01}, steps=8, warmup=2)
    rates: list[list[float]] = []
    train_stage(
        state,
        plan,
        ROLLOUT,
        stage_optimiser(state, plan),
        state.embedding,
        seed=0,
        begin=5,
        on_step=lambda _, optimiser: rates.append([group["lr"] for group in optimiser.param_groups]),
    )
    half = plan.rate_factor(5)
    assert half == pytest.approx(0.5)
    assert rates[0] == pytest.approx([0.2 * half, 0.01 * half])


@pytest.mark.parametrize("trains", [("embedding",), ("lora",), ("projector",), ("lora", "embedding")])
def test_only_the_groups_of_the_stage_move(state: TrainingState, trains: tuple[str, ...]) -> None:
    before = {name: [p.detach().clone() for p in group] for name, group in state.groups().items()}
    trainable = {id(parameter) for group in state.groups().values() for parameter in group}
    frozen = [parameter for parameter in state.attacker.prior.parameters() if id(parameter) not in trainable]
    still = [parameter.detach().clone() for parameter in frozen]
    trained(state, replace(EMBED, trains=trains, rates=dict.fromkeys(trains, 0.05), steps=2))
    for name, group in state.groups().items():
        moved = any(not torch.equal(a, b) for a, b in zip(group, before[name], strict=True))
        assert moved == (name in trains), name
    assert all(torch.equal(a, b) for a, b in zip(frozen, still, strict=True))


def test_a_step_ends_inside_the_manifold(attacker: Attacker) -> None:
    embedding = ManifoldEmbedding(attacker.pseudo_anchors(4), attacker.public.embeddings)
    state = replace(started(attacker), embedding=embedding)
    trained(state, replace(EMBED, rates={"embedding": 100.0}))
    assert embedding.coefficients.norm(dim=1).max() <= embedding.radius * (1 + 1e-6)
    assert embedding.coefficients.norm(dim=1).max() > 0.99 * embedding.radius


def test_a_report_says_what_the_step_did(state: TrainingState) -> None:
    candidates, reports = trained(state, EMBED)
    expected = IdentityCosine()(candidates[1]).detach()
    assert reports[1].parts["id"] == pytest.approx(float(expected.mean()))
    assert reports[1].value == pytest.approx(float(expected.mean()))
    hits = (candidates[1].logits.argmax(1) == candidates[1].target).double().mean()
    assert reports[1].target_accuracy == pytest.approx(float(hits))
    assert [report.step for report in reports] == [0, 1, 2, 3]
    assert reports[0].gradient_norm > 0


class Slopes(Term):
    """The numbers 1, 2, 3, ..., one an image, times a factor that learns."""

    lower_bound = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, candidate: Candidate) -> Tensor:
        return self.factor * torch.arange(1.0, len(candidate.image) + 1)


class Alike(GradientWeighting):
    """Every loss counts once."""

    def forward(self, losses: Tensor, *_: object) -> Tensor:
        return torch.ones_like(losses)


@pytest.mark.parametrize("gradients", [None, Alike()])
@pytest.mark.parametrize(("batch", "mean"), [(3, 2.0), (7, 4.0)])
def test_what_is_descended_is_the_mean_over_the_images(
    attacker: Attacker, batch: int, mean: float, gradients: GradientWeighting | None
) -> None:
    """So a step is as long whatever the batch: the mean of 1, 2, 3 is 2, and their sum, 6, is nowhere."""
    entries = [Entry(name="slopes", group="perc", term=Slopes())]
    state = started(attacker, Objective(entries, Fixed({"perc": 1.0})))
    plan = replace(EMBED, steps=1, batch=batch)
    reports: list[StepReport] = []
    train_stage(
        state,
        plan,
        ROLLOUT,
        stage_optimiser(state, plan),
        state.embedding,
        seed=0,
        gradient_weighting=gradients,
        on_step=lambda report, _: reports.append(report),
    )
    assert [report.value for report in reports] == pytest.approx([mean])
    assert [report.gradient_norm for report in reports] == pytest.approx([mean])


def test_a_stage_with_nothing_to_train_is_refused(attacker: Attacker) -> None:
    state = started(attacker)
    with pytest.raises(InvalidSetting, match="`trains` should name what this generator has: embedding, projector"):
        stage_optimiser(state, ADAPT)


class Breaking(Term):
    """1 for every image, by way of its embedding; NaN from the ``step``-th call on, in its value or its gradient."""

    lower_bound = 0.0

    def __init__(self, step: int, *, gradient: bool = False) -> None:
        super().__init__()
        self.step, self.gradient, self.calls = step, gradient, 0

    def forward(self, candidate: Candidate) -> Tensor:
        self.calls += 1
        assert candidate.embedding is not None
        nothing = 0 * candidate.embedding.sum(1)
        if self.calls <= self.step:
            return nothing + 1
        return nothing.sqrt() if self.gradient else nothing * math.nan


class Level(Term):
    """The squared distance of the image's mean from a level that learns, with a count of the batches seen."""

    lower_bound = 0.0
    seen: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.tensor(0.2))
        self.kept = nn.Parameter(torch.tensor(3.0), requires_grad=False)
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("scratch", torch.zeros(()), persistent=False)

    def forward(self, candidate: Candidate) -> Tensor:
        self.seen += 1
        return (candidate.image.mean((1, 2, 3)) - self.level).square()


def levelled(attacker: Attacker) -> TrainingState:
    entries = [
        Entry(name="id", group="id", term=IdentityCosine()),
        Entry(name="level", group="perc", term=Level()),
        Entry(name="cls_feature", group="cls", term=LearnedCentre(torch.eye(8, 768))),
    ]
    return started(attacker, Objective(entries, Fixed({"id": 1.0, "perc": 1.0, "cls": 1.0})))


def test_parameters_of_terms_learn_at_a_tenth_of_the_rate(attacker: Attacker) -> None:
    """Centres under their own name, any other beside them; frozen ones not at all."""
    state = levelled(attacker)
    groups = stage_optimiser(state, EMBED).param_groups
    term = state.objective.terms["level"]
    (centres,) = state.slow_groups()["centres"].values()
    assert [len(group["params"]) for group in groups] == [1, 1, 1]
    assert [group["base_rate"] for group in groups] == pytest.approx([0.05, 0.005, 0.005])
    assert groups[1]["params"][0] is centres
    assert groups[2]["params"][0] is term.level
    assert all(group["weight_decay"] == 0 for group in groups[1:])
    before = centres.detach().clone()
    train_stage(state, EMBED, ROLLOUT, stage_optimiser(state, EMBED), state.embedding, seed=0)
    assert term.level != 0.2
    assert term.kept == 3
    assert not torch.equal(centres, before)


def test_what_terms_learn_and_remember_is_restored_to_the_same_bits(attacker: Attacker) -> None:
    """A state that was saved after two of four steps and taken back by another ends like one that went through."""
    whole, cut, resumed = (levelled(attacker) for _ in range(3))
    train_stage(whole, EMBED, ROLLOUT, stage_optimiser(whole, EMBED), whole.embedding, seed=0)
    saved: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}

    def save(report: StepReport, optimiser: torch.optim.Optimizer) -> None:
        if report.step == 1:
            saved.update({name: value.clone() for name, value in cut.tensors().items()})
            moments.update(copy.deepcopy(optimiser.state_dict()["state"]))

    train_stage(cut, EMBED, ROLLOUT, stage_optimiser(cut, EMBED), cut.embedding, seed=0, on_step=save)
    assert saved["terms.level.seen"] == 2
    assert {name for name in saved if name.startswith("terms.level")} == {"terms.level.level", "terms.level.seen"}
    resumed.restore(saved)
    optimiser = stage_optimiser(resumed, EMBED)
    Checkpoint(2, saved, moments).restore(optimiser)
    train_stage(resumed, EMBED, ROLLOUT, optimiser, resumed.embedding, seed=0, begin=2)
    ends = whole.tensors()
    assert ends["terms.level.seen"] == 4
    assert ends.keys() == resumed.tensors().keys()
    assert all(torch.equal(value, ends[name]) for name, value in resumed.tensors().items())


def test_a_checkpoint_without_buffers_of_terms_is_taken_back_too(attacker: Attacker) -> None:
    saved = {name: value for name, value in levelled(attacker).tensors().items() if name != "terms.level.seen"}
    state = levelled(attacker)
    state.restore(saved)
    assert state.tensors()["terms.level.seen"] == 0


@pytest.mark.parametrize("gradient", [False, True])
def test_a_step_that_breaks_off_leaves_no_trace(attacker: Attacker, gradient: bool) -> None:
    """The term that is finite has a running scale, which counts the step before the other one is seen to break."""
    entries = [
        Entry(name="id", group="id", term=IdentityCosine(), scale="ema"),
        Entry(name="level", group="id", term=Level()),
        Entry(name="perc", group="perc", term=Breaking(2, gradient=gradient)),
    ]
    state = started(attacker, Objective(entries, Fixed({"id": 1.0, "perc": 1.0})))
    kept: list[dict[str, Tensor]] = []

    def keep(_: StepReport, __: torch.optim.Optimizer) -> None:
        kept.append({name: value.clone() for name, value in state.tensors().items()})

    with pytest.raises(NotFinite, match="step 2"):
        train_stage(state, EMBED, ROLLOUT, stage_optimiser(state, EMBED), state.embedding, seed=0, on_step=keep)
    assert kept[1]["scales.id.count"] == kept[1]["terms.level.seen"] == 2
    assert all(torch.equal(value, kept[1][name]) for name, value in state.tensors().items())


def test_a_weighed_gradient_that_is_not_finite_is_named_by_group_and_step(attacker: Attacker) -> None:
    pytest.importorskip("torchjd")
    entries = [
        Entry(name="id", group="id", term=IdentityCosine()),
        Entry(name="perc", group="perc", term=Breaking(0, gradient=True)),
    ]
    state = started(attacker, Objective(entries, Fixed({"id": 1.0, "perc": 1.0})))
    plan = replace(EMBED, first_step=7)
    with pytest.raises(NotFinite, match=r"`gradient of perc` should be finite\. Found NaN or infinity at step 7\."):
        train_stage(
            state,
            plan,
            ROLLOUT,
            stage_optimiser(state, plan),
            state.embedding,
            seed=0,
            gradient_weighting=JacobianDescent(),
        )


def test_a_state_keeps_sigmas_by_group_and_centres_by_term(attacker: Attacker) -> None:
    """A checkpoint then finds them again in whatever order they come."""

    def learning(groups: tuple[str, ...], level: float) -> TrainingState:
        centre = LearnedCentre(torch.full((8, 3), level))
        entries = [
            Entry(name="cls_feature", group="cls", term=centre),
            Entry(name="id", group="id", term=IdentityCosine()),
        ]
        return started(attacker, Objective(entries, Uncertainty(groups, initial={"id": 0.5 + level})))

    saved = learning(("cls", "id"), 1.0).tensors()
    assert {name for name in saved if name.startswith(("sigmas", "centres"))} == {
        "sigmas.cls",
        "sigmas.id",
        "centres.cls_feature",
    }
    other = learning(("id", "cls"), 0.0)
    other.restore(saved)
    assert other.objective.weighting.weights(0) == pytest.approx({"id": 1.5, "cls": 0.5})
    assert other.slow_groups()["centres"]["cls_feature"].min() == 1
