"""What the prior is asked in a training step: at which times, and for whom."""

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from diffaudit.candidate import Candidate
from diffaudit.inversion.attacker import Attacker
from diffaudit.inversion.candidates import draw_candidate
from diffaudit.inversion.embedding import TableEmbedding
from diffaudit.inversion.plans import ImagePlan, StagePlan
from diffaudit.inversion.state import TrainingState
from diffaudit.models.prior import DiffusionPrior
from diffaudit.objective import Entry, Objective
from diffaudit.terms import PriorNoise
from diffaudit.weighting import Fixed

from .conftest import DIMENSION, Pixels, StubUnet, Unchanged

ROWS = torch.arange(5).repeat(400)
"""Each of the five classes sought, 400 times."""

Asked = list[tuple[Tensor, Tensor]]
"""Time steps ``(B,)`` and tokens ``(B, 2, D)`` of every question: first the picture's, then the prior's own draw."""


class Length(nn.Module):
    """A prompt as one token, all of whose entries are its length."""

    def forward(self, prompts: list[str]) -> Tensor:
        return torch.tensor([[[float(len(prompt))] * DIMENSION] for prompt in prompts])


@pytest.fixture
def asked() -> Asked:
    return []


@pytest.fixture
def state(attacker: Attacker, asked: Asked) -> TrainingState:
    """Under the prompt "face", with a prior of five time steps that sees no noise but remembers what it was asked.

    Its tokens are the prompt's length and the embedding: both are 0 where there is none.
    """

    def answer(latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        asked.append((timesteps, tokens.detach()))
        return 0 * latents

    prior = DiffusionPrior(
        Pixels(),
        StubUnet(answer),
        DDIMScheduler(num_train_timesteps=5),
        text=Length(),  # type: ignore[arg-type]
        projector=Unchanged(DIMENSION, DIMENSION),
    )
    objective = Objective([Entry(name="prior", group="prior", term=PriorNoise())], Fixed({"prior": 1.0}))
    seeking = replace(attacker, prior=prior, prompt="face")
    return TrainingState(TableEmbedding(attacker.pseudo_anchors(4)), seeking, objective)


def drawn(state: TrainingState, condition: Literal["label", "image", "hybrid"] = "label") -> Candidate:
    """In the second of three steps that train the label embedding, pictures from the cleanest two of five times."""
    plan = StagePlan("embed", ("embedding",), 3, {"embedding": 0.1}, len(ROWS), 0, 0, 1.0, 0.0, condition)
    image = ImagePlan("one_step", steps=1, gradient_steps=1, strength=0.4, guidance_scale=1.0)
    generator = torch.Generator().manual_seed(0)
    return draw_candidate(state, plan, image, state.embedding, ROWS, generator, step=1, prior_weight=1.0)


def test_progress_runs_from_0_at_pure_noise_to_1_at_the_clean_picture(state: TrainingState, asked: Asked) -> None:
    progress = drawn(state).progress
    assert progress is not None
    _, (timesteps, _) = asked
    pairs = set(zip(timesteps.tolist(), progress.tolist(), strict=True))
    assert pairs == {(0, 1.0), (1, 0.75), (2, 0.5), (3, 0.25), (4, 0.0)}


def test_the_draw_takes_all_times_alike_whatever_the_strength_of_the_picture(
    state: TrainingState, asked: Asked
) -> None:
    drawn(state)
    (of_picture, _), (of_draw, _) = asked
    assert (of_picture.bincount(minlength=5) / len(ROWS)).tolist() == pytest.approx([0.5, 0.5, 0, 0, 0], abs=0.05)
    assert (of_draw.bincount(minlength=5) / len(ROWS)).tolist() == pytest.approx([0.2] * 5, abs=0.05)


def test_one_draw_in_ten_is_asked_for_nobody_and_the_others_for_their_own_class(
    state: TrainingState, asked: Asked
) -> None:
    """For nobody: without an embedding and without the prompt, as guidance asks."""
    drawn(state)
    _, (_, tokens) = asked
    nobody = (tokens == 0).flatten(1).all(1)
    assert float(nobody.double().mean()) == pytest.approx(0.1, abs=0.03)
    own = torch.stack([torch.full((len(ROWS), DIMENSION), float(len("face"))), state.embedding(ROWS).detach()], dim=1)
    assert torch.equal(tokens[~nobody], own[~nobody])


@pytest.mark.parametrize(("condition", "along"), [("label", (0, 1)), ("image", (1, 0)), ("hybrid", (3, 1))])
def test_a_third_of_the_way_a_quarter_of_the_identity_is_the_labels(
    state: TrainingState, asked: Asked, condition: Literal["label", "image", "hybrid"], along: tuple[int, int]
) -> None:
    """A quarter is (1 - cos 60 degrees) / 2. Sources look east here and labels north: 3/4 of the one and 1/4 of the
    other point to (3, 1), and length 1 is a division by the square root of 10."""
    attacker, (east, north) = state.attacker, torch.eye(2, DIMENSION)
    public = replace(attacker.public, embeddings=east.expand(len(attacker.public), -1))
    state = replace(state, attacker=replace(attacker, public=public), embedding=TableEmbedding(north.expand(5, -1)))
    drawn(state, condition)
    (_, tokens), _ = asked
    expected = torch.tensor([*along, 0, 0, 0, 0]) / math.hypot(*along)
    torch.testing.assert_close(tokens[:, 1], expected.expand(len(ROWS), -1))


def test_each_picture_keeps_its_own_sources_identity(state: TrainingState, asked: Asked) -> None:
    source = drawn(state, "image").source
    (_, tokens), _ = asked
    torch.testing.assert_close(tokens[:, 1], state.attacker.encoder(source))
