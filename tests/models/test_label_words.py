import pytest
import torch

from diffaudit.errors import InvalidSetting
from diffaudit.models.autoencoder import UnshuffleAutoencoder
from diffaudit.models.label_words import LabelWords
from diffaudit.models.prior import DiffusionPrior
from diffaudit.training.prior import small_prior

SIZE = 8


@pytest.fixture
def prior() -> DiffusionPrior:
    torch.manual_seed(0)
    autoencoder = UnshuffleAutoencoder(latent_channels=4, widths=(8, 8, 8, 8))
    words = ("a", "portrait", "of", "red", "person", "with", "hair")
    prior = small_prior(autoencoder, vocabulary=words, embedding_dim=None, widths=(16,), cross_attention_dim=SIZE)
    return prior.eval().requires_grad_(False)


def words_of(
    prior: DiffusionPrior, template: str = "a portrait of a {label} with hair", initial: str = "red person"
) -> LabelWords:
    assert prior.text is not None
    return LabelWords(prior.text, template, initial)


def test_the_vectors_begin_as_the_initial_words(prior: DiffusionPrior) -> None:
    """Left as they are, they say what the prompt says; each token of the words is a vector."""
    words = words_of(prior)
    assert prior.text is not None
    assert words.dimension == 2 * SIZE
    torch.testing.assert_close(words(words.start[None]), prior.text(["a portrait of a red person with hair"]))


def test_each_image_has_its_own_words(prior: DiffusionPrior) -> None:
    words = words_of(prior)
    assert prior.text is not None
    person_red = words.start.view(2, SIZE).flip(0).flatten()
    tokens = words(torch.stack([words.start, person_red]))
    expected = prior.text(["a portrait of a red person with hair", "a portrait of a person red with hair"])
    torch.testing.assert_close(tokens, expected)
    assert not torch.allclose(tokens[0], tokens[1])


def test_the_gradient_reaches_the_vectors(prior: DiffusionPrior) -> None:
    words = words_of(prior)
    vectors = words.start.repeat(2, 1).requires_grad_()
    words(vectors)[0].square().sum().backward()
    assert vectors.grad is not None
    assert vectors.grad[0].abs().min() > 0
    assert not vectors.grad[1].any()


def test_words_after_the_vectors_hear_them(prior: DiffusionPrior) -> None:
    """The vectors stand below the encoder's attention, which looks back alone: what comes before stays as it was."""
    words = words_of(prior)
    said, silent = words(-words.start[None]), words(words.start[None])
    first, last = words.positions
    assert (first, last) == (5, 6)  # start, a, portrait, of, a
    torch.testing.assert_close(said[0, :first], silent[0, :first])
    assert (said[0, first:] - silent[0, first:]).abs().amax(1).min() > 1e-3


def test_the_encoder_is_left_as_it_was(prior: DiffusionPrior) -> None:
    words = words_of(prior)
    assert prior.text is not None
    before = prior.text(["red hair"])
    words(words.start[None] + 1)
    with pytest.raises(RuntimeError):
        words(torch.zeros(1, 3))
    assert torch.equal(prior.text(["red hair"]), before)


def test_a_prior_with_words_is_asked_by_them(prior: DiffusionPrior) -> None:
    words = prior.words = words_of(prior)
    assert prior.dimension == words.dimension
    vectors = words.start.repeat(3, 1)
    torch.testing.assert_close(prior.condition(vectors, 3).tokens, words(vectors))
    torch.testing.assert_close(prior.condition(None, 3, words.prompt).tokens, words(vectors))
    assert not torch.allclose(prior.condition(None, 3).tokens, words(vectors))


@pytest.mark.parametrize(
    ("template", "initial", "rule"),
    [
        ("a portrait", "person", "have one place {label}"),
        ("a {label} with {label}", "person", "have one place {label}"),
        ("a person with a {label}", "person", "not name 'person' itself"),
        ("a portrait of {label}s", "person", "stand as words of their own"),
        ("a {label} with {distractor}", "person", "have no place {distractor}"),
        ("a portrait of a {label}", "fox", "be of words that the tokenizer knows"),
    ],
)
def test_prompts_without_a_place_are_refused(prior: DiffusionPrior, template: str, initial: str, rule: str) -> None:
    with pytest.raises(InvalidSetting, match=rule):
        words_of(prior, template, initial)
