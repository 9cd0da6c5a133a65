"""The prior's training: what its loss measures, which conditions it hides, and what it samples."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from diffaudit.data.captions import VOCABULARY, captions
from diffaudit.data.faces import sample_faces, sample_identities
from diffaudit.errors import InvalidSetting
from diffaudit.inversion.generator import Generator
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.prior import DiffusionPrior
from diffaudit.training.prior import (
    Dropping,
    LatentPool,
    PriorTrainer,
    drawn_pictures,
    latent_rows,
    small_prior,
    untrained_prior,
)
from diffaudit.training.tokenizers import subword_tokenizer, word_tokenizer

PEOPLE = 6


@pytest.fixture
def prior() -> DiffusionPrior:
    torch.manual_seed(0)
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8)).eval()
    return small_prior(
        autoencoder, vocabulary=VOCABULARY, embedding_dim=PEOPLE, widths=(16, 16), cross_attention_dim=16
    ).eval()


@pytest.fixture
def pool(prior: DiffusionPrior) -> LatentPool:
    """Six people of four photographs; everyone's embedding is an axis of their own, every latent the same."""
    faces = sample_faces(sample_identities(PEOPLE, seed=0).repeat_interleave(4, 0), seed=1)
    assert prior.text is not None
    token_ids = prior.text.token_ids(captions(faces))
    return LatentPool(torch.full((24, 4, 2, 2), 0.3), torch.eye(PEOPLE).repeat_interleave(4, 0), token_ids, 4)


class Unet(nn.Module):
    """Velocity in closed form: ``answer(noisy, timesteps)``; it remembers the time steps."""

    def __init__(self, answer: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.answer = answer
        self.timesteps = torch.empty(0)

    def forward(self, noisy: Tensor, timesteps: Tensor, **_: object) -> tuple[Tensor]:
        self.timesteps = timesteps
        return (self.answer(noisy, timesteps),)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def levels(prior: DiffusionPrior, timesteps: Tensor) -> tuple[Tensor, Tensor]:
    kept = prior.alphas_cumprod[timesteps][:, None, None, None]
    return kept.sqrt(), (1 - kept).sqrt()


def perfect(prior: DiffusionPrior, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """The velocity where every clean latent is known to be 0.3."""
    a, s = levels(prior, timesteps)
    return a * (noisy - a * 0.3) / s - s * 0.3


def test_a_perfect_velocity_costs_nothing(prior: DiffusionPrior, pool: LatentPool) -> None:
    trainer = PriorTrainer(prior)
    trainer.unet = Unet(lambda noisy, timesteps: perfect(prior, noisy, timesteps))
    assert float(trainer.loss(pool, 64, seeded())) == pytest.approx(0, abs=1e-6)


def test_a_constant_error_costs_its_square_whatever_the_times(prior: DiffusionPrior, pool: LatentPool) -> None:
    trainer = PriorTrainer(prior)
    trainer.unet = Unet(lambda noisy, timesteps: perfect(prior, noisy, timesteps) + 0.5)
    assert float(trainer.loss(pool, 64, seeded())) == pytest.approx(0.25, abs=1e-4)


def test_errors_weigh_by_the_clamped_signal_to_noise_ratio(prior: DiffusionPrior, pool: LatentPool) -> None:
    def off(timesteps: Tensor) -> Tensor:
        return (timesteps / 1000)[:, None, None, None]

    trainer, unet = PriorTrainer(prior), Unet(lambda noisy, t: perfect(prior, noisy, t) + off(t))
    trainer.unet = unet
    found = float(trainer.loss(pool, 64, seeded()))
    a, s = levels(prior, unet.timesteps)
    ratio = (a / s).square()
    weight = ratio.clamp(max=5) / (ratio + 1)
    assert found == pytest.approx(float((weight * off(unet.timesteps).square()).sum() / weight.sum()), rel=1e-3)
    assert unet.timesteps.min() < 50
    assert unet.timesteps.max() > 950


Told = tuple[Tensor, Tensor]


@pytest.fixture
def told(prior: DiffusionPrior, pool: LatentPool) -> Callable[[Dropping | None], Told]:
    """Which of 4,000 examples lost their caption, and the identities that the projector was given."""

    def examples(dropping: Dropping | None) -> Told:
        trainer = PriorTrainer(prior, dropping)
        trainer.unet = Unet(lambda noisy, _: noisy)
        assert trainer.projector is not None
        identities: list[Tensor] = []
        texts: list[Tensor] = []
        hooks = [
            trainer.projector.register_forward_pre_hook(lambda _, inputs: identities.append(inputs[0].detach())),
            trainer.text.encoder.register_forward_pre_hook(lambda _, inputs: texts.append(inputs[0])),
        ]
        with torch.no_grad():
            trainer.loss(pool, 4000, seeded())
        for hook in hooks:
            hook.remove()
        return texts[0], identities[0]

    return examples


def null_ids(prior: DiffusionPrior) -> Tensor:
    assert prior.text is not None
    return prior.text.token_ids([""])


def test_conditions_are_hidden_at_their_rates(prior: DiffusionPrior, told: Callable[[Dropping | None], Told]) -> None:
    texts, identities = told(None)
    no_text = (texts == null_ids(prior)).all(1)
    no_identity = (identities == 0).all(1)
    both = (no_text & no_identity).double().mean().item()
    assert both == pytest.approx(0.08, abs=0.02)
    assert no_text.double().mean().item() == pytest.approx(1 - 0.5 * 0.92, abs=0.03)
    assert no_identity[~no_text].double().mean().item() == pytest.approx(0.25, abs=0.03)


def test_nothing_is_hidden_at_rate_zero(prior: DiffusionPrior, told: Callable[[Dropping | None], Told]) -> None:
    texts, identities = told(Dropping(0, 0, 0))
    assert not (texts == null_ids(prior)).all(1).any()
    assert (identities.norm(dim=1) > 0).all()


def test_what_is_hidden_is_what_sampling_asks_for(
    prior: DiffusionPrior, told: Callable[[Dropping | None], Told]
) -> None:
    """Guidance subtracts the prediction under an empty prompt: it must be the caption that training hid."""
    texts, identities = told(Dropping(text=1, identity=0, both=1))
    assert torch.equal(texts, null_ids(prior).expand(4000, -1))
    assert not identities.any()


def test_identities_are_those_of_other_photographs_of_the_same_person(
    pool: LatentPool, told: Callable[[Dropping | None], Told]
) -> None:
    texts, identities = told(Dropping(0, 0, 0))
    rows = torch.randint(len(pool.latents), (4000,), generator=seeded())  # the loss's first draw
    assert torch.equal(texts, pool.token_ids[rows])
    assert pool.embeddings is not None
    torch.testing.assert_close(identities, pool.embeddings[rows])


def test_every_caption_is_understood_whole() -> None:
    tokenizer = word_tokenizer(VOCABULARY)
    faces = sample_faces(sample_identities(300, seed=2), seed=3)
    for caption in captions(faces):
        tokens = tokenizer(caption)["input_ids"]
        assert tokenizer.unk_token_id not in tokens
        assert len(tokens) <= tokenizer.model_max_length
        assert (tokens[0], tokens[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_the_frozen_autoencoder_stays_out_of_checkpoints(prior: DiffusionPrior) -> None:
    trainer = PriorTrainer(prior)
    assert {name.split(".")[0] for name in trainer.state_dict()} == {"unet", "text", "projector"}


def test_every_part_learns(prior: DiffusionPrior, pool: LatentPool) -> None:
    trainer = PriorTrainer(prior.requires_grad_(True), Dropping(0, 0, 0))
    trainer.loss(pool, 4, seeded()).backward()
    for part in (trainer.unet, trainer.text, trainer.projector):
        assert part is not None
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def worded(prior: DiffusionPrior) -> DiffusionPrior:
    """A prior that knows words alone, split into pieces."""
    tokenizer = subword_tokenizer(["a photo of a red fox", "a photo of a crane"], size=280, length=16)
    torch.manual_seed(1)
    return untrained_prior(
        prior.autoencoder, tokenizer, latent_channels=4, side=2, widths=(16, 16), cross_attention_dim=16
    )


def test_a_prior_of_words_alone_learns_without_identities(prior: DiffusionPrior, pool: LatentPool) -> None:
    trainer = PriorTrainer(worded(prior), Dropping(0, 0, 0))
    ids = trainer.text.token_ids(["a photo of a crane"]).expand(24, -1)
    trainer.loss(LatentPool(pool.latents, None, ids, 4), 4, seeded()).backward()
    assert {name.split(".")[0] for name in trainer.state_dict()} == {"unet", "text"}
    for part in (trainer.unet, trainer.text):
        assert any(p.grad is not None and p.grad.abs().max() > 0 for p in part.parameters())


def test_words_are_dropped_for_the_prompt_that_is_empty(prior: DiffusionPrior, pool: LatentPool) -> None:
    trainer = PriorTrainer(worded(prior), Dropping(text=0.25, identity=0.0, both=0.0))
    trainer.unet = Unet(lambda noisy, _: noisy)
    seen: list[Tensor] = []
    trainer.text.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    caption, nothing = trainer.text.token_ids(["a photo of a crane", ""])
    with torch.no_grad():
        trainer.loss(LatentPool(pool.latents, None, caption.expand(24, -1), 4), 4000, seeded())
    dropped = (seen[0] == nothing).all(1)
    assert bool(((seen[0] == caption).all(1) ^ dropped).all())
    assert float(dropped.float().mean()) == pytest.approx(0.25, abs=0.03)


def test_what_a_prior_is_not_told_is_refused(prior: DiffusionPrior, pool: LatentPool) -> None:
    mute = DiffusionPrior(prior.autoencoder, prior.unet, prior.scheduler, projector=prior.projector)
    with pytest.raises(InvalidSetting, match="should know a text condition"):
        PriorTrainer(mute)
    with pytest.raises(InvalidSetting, match=r"`pool\.embeddings` should be given"):
        PriorTrainer(prior).loss(LatentPool(pool.latents, None, pool.token_ids, 4), 2, seeded())


def test_latents_are_those_of_the_prior(prior: DiffusionPrior) -> None:
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(latent_rows(prior, images), prior.encode(images / 255))


@pytest.mark.parametrize("guidance_scale", [1.0, 1.5])
def test_pictures_are_drawn_as_audits_draw_them(prior: DiffusionPrior, guidance_scale: float) -> None:
    sources, embeddings = torch.rand(3, 3, 16, 16), torch.eye(PEOPLE)[:3]
    how = {"steps": 3, "strength": 0.9, "guidance_scale": guidance_scale}
    drawn = drawn_pictures(prior, sources, embeddings, seed=4, **how)  # type: ignore[arg-type]
    with torch.no_grad():
        latents = prior.encode(sources)
        noise = torch.randn(latents.shape, generator=seeded(4))
        clean = Generator(prior).rollout(latents, noise, embeddings, **how)  # type: ignore[arg-type]
        expected = (prior.decode(clean).clamp(0, 1) * 255).round().byte()
    assert torch.equal(drawn, expected)
