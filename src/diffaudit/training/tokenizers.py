"""Small tokenizers for captions: one token a word, or pieces of words learned from the labels themselves."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

PAD, START, END, UNKNOWN = "[pad]", "[start]", "[end]", "[unknown]"
SPECIAL = (PAD, START, END, UNKNOWN)
"""Tokens 0 to 3 of every tokenizer here."""


def word_tokenizer(vocabulary: Sequence[str], *, length: int = 26) -> PreTrainedTokenizerFast:
    """A tokenizer with one token a word, for captions whose words are all known, of at most ``length`` tokens."""
    words = [*SPECIAL, *vocabulary]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return _fast(tokenizer, length)


def subword_tokenizer(texts: Sequence[str], *, size: int, length: int) -> PreTrainedTokenizerFast:
    """A tokenizer of at most ``size`` pieces of words, merged as they are frequent in ``texts``; case does not count.

    It begins with all bytes, so no text is unknown to it. Prompts have at most ``length`` tokens. Sennrich, Haddow,
    Birch, *Neural Machine Translation of Rare Words with Subword Units*, 2015, arXiv 1508.07909.

    >>> tokenizer = subword_tokenizer(["low", "low", "lower", "slow"], size=264, length=8)
    >>> tokenizer.convert_ids_to_tokens(tokenizer("slow glow")["input_ids"])
    ['[start]', 'Ġ', 's', 'low', 'Ġ', 'g', 'low', '[end]']
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(list(texts), trainer)
    return _fast(tokenizer, length)


def _fast(tokenizer: Tokenizer, length: int) -> PreTrainedTokenizerFast:
    template = f"{START} $A {END}"
    tokenizer.post_processor = TemplateProcessing(single=template, special_tokens=[(START, 1), (END, 2)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=START,
        eos_token=END,
        unk_token=UNKNOWN,
        model_max_length=length,
    )
