from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from diffaudit.data.captions import VOCABULARY
from diffaudit.errors import InvalidSetting
from diffaudit.models.prompts import label_tokens, prompt_with, token_mask
from diffaudit.training.tokenizers import word_tokenizer


def byte_pairs(length: int = 40) -> PreTrainedTokenizerFast:
    """A BPE tokenizer that knows "fo" and single letters: "fox" is two tokens, "cat" three."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = {word: number for number, word in enumerate(["[pad]", "[unknown]", *letters, "fo"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[("f", "o")], unk_token="[unknown]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[pad]", unk_token="[unknown]", model_max_length=length
    )


def test_all_tokens_of_a_label_anywhere() -> None:
    # "a" is one token, "fox" two, "by" two, "cat" three.
    assert label_tokens(byte_pairs(), "a fox by a cat", "fox") == (1, 2)
    assert label_tokens(byte_pairs(), "a fox by a cat", "Cat") == (6, 7, 8)
    assert label_tokens(byte_pairs(), "cat, a fox", "fox") == (5, 6)


def test_the_first_token_alone_would_miss_most_of_a_label() -> None:
    positions = label_tokens(byte_pairs(), "a cat", "cat")
    maps = torch.tensor([[[0.4, 0.1, 0.2, 0.3]]])
    assert maps[..., positions[0]].item() == pytest.approx(0.1)
    assert maps[..., list(positions)].sum().item() == pytest.approx(0.6)


def test_words_are_whole() -> None:
    assert label_tokens(byte_pairs(), "bored red", "red") == (5, 6, 7)
    with pytest.raises(InvalidSetting, match="`label` should stand in the prompt 'bored' as words of its own"):
        label_tokens(byte_pairs(), "bored", "red")
    with pytest.raises(InvalidSetting, match="Found ' '"):
        label_tokens(byte_pairs(), "bored", " ")


def test_the_priors_own_tokenizer_with_start_and_padding() -> None:
    tokenizer = word_tokenizer(VOCABULARY)
    prompt = "a portrait of a person with long red hair"
    assert label_tokens(tokenizer, prompt, "red hair", length=26) == (8, 9)
    assert label_tokens(tokenizer, prompt, "red hair") == (8, 9)
    tokenizer.padding_side = "left"
    ids = tokenizer(prompt, padding="max_length", max_length=26)["input_ids"]
    assert [tokenizer.decode([ids[at]]) for at in label_tokens(tokenizer, prompt, "red hair", length=26)] == [
        "red",
        "hair",
    ]


def test_a_label_named_twice_and_one_inside_the_other() -> None:
    tokenizer = word_tokenizer(["fox", "and", "red"])
    assert label_tokens(tokenizer, "fox and fox", "fox") == (1, 3)
    assert label_tokens(tokenizer, "fox and red fox", "fox", beside="red fox") == (1,)
    assert label_tokens(tokenizer, "fox and red fox", "red fox", beside="fox") == (3, 4)
    with pytest.raises(InvalidSetting, match="as words of its own"):
        label_tokens(tokenizer, "red fox", "fox", beside="red fox")


def test_a_label_that_was_cut_off_is_refused() -> None:
    with pytest.raises(InvalidSetting, match=r"stand within the first 4 tokens .* Shorten the prompt"):
        label_tokens(byte_pairs(4), "a b cat", "cat")


def test_unknown_words_and_slow_tokenizers_are_refused() -> None:
    with pytest.raises(InvalidSetting, match="be of words that the tokenizer knows"):
        label_tokens(word_tokenizer(["a"]), "a zebra", "zebra")
    with pytest.raises(InvalidSetting, match="`tokenizer` should be a fast one"):
        label_tokens(SimpleNamespace(is_fast=False), "a", "a")


def test_prompts() -> None:
    assert prompt_with("{label}, not {distractor}", "cat", "dog") == "cat, not dog"
    assert prompt_with("a {label}", "{distractor}") == "a {distractor}"
    for template, label in (("a photo", "label"), ("{label} and {distractor}", "distractor")):
        with pytest.raises(InvalidSetting, match=rf"`template` should have .*{{{label}}}"):
            prompt_with(template, "cat")


@pytest.mark.parametrize("positions", [(), (3,), (-1,)])
def test_positions_outside_are_refused(positions: tuple[int, ...]) -> None:
    with pytest.raises(InvalidSetting, match=r"at least one position in \[0, 2\]"):
        token_mask([positions], 3)
