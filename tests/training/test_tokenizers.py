"""Tokenizers of captions: pieces of words that are found again in a prompt."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from diffaudit.models.prompts import label_tokens
from diffaudit.training.tokenizers import SPECIAL, subword_tokenizer, word_tokenizer

LABELS = ["red fox", "grey fox", "black-and-tan coonhound", "jack-o'-lantern", "Shih-Tzu"]


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    texts = [f"a photo of a {label}" for label in LABELS]
    return subword_tokenizer(texts, size=4 + 256 + 12, length=48)


def pieces(tokenizer: PreTrainedTokenizerFast, prompt: str, label: str) -> str:
    ids = tokenizer(prompt)["input_ids"]
    return str(tokenizer.decode([ids[position] for position in label_tokens(tokenizer, prompt, label)])).strip()


@pytest.mark.parametrize("label", LABELS)
def test_a_label_of_several_pieces_is_found_whole(tokenizer: PreTrainedTokenizerFast, label: str) -> None:
    prompt = f"a photo of a {label} and zebra"
    assert len(label_tokens(tokenizer, prompt, label)) > 1
    assert pieces(tokenizer, prompt, label) == label.lower()


def test_no_text_is_unknown_and_case_does_not_count(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("Ünknown 狐 Red")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer("RED FOX")["input_ids"] == tokenizer("red fox")["input_ids"]


@pytest.mark.parametrize("make", ["subword", "word"])
def test_what_priors_are_saved_with_is_read_back(tokenizer: PreTrainedTokenizerFast, make: str, tmp_path: Path) -> None:
    if make == "word":
        tokenizer = word_tokenizer(["a", "photo", "of", "red", "fox"], length=48)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2, 3]) == list(SPECIAL)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    prompt = "a photo of a red fox"
    assert again(prompt)["input_ids"] == tokenizer(prompt)["input_ids"]
    assert again.model_max_length == 48
