"""Byte-level tokenizers trained on any iterator of texts, in memory that no text's length sets."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from data.tokenizing.byte_level import BOS, EOS, ByteLevelTokenizer, byte_characters

TRAINING_VERSION = 2  # part of a trained tokenizer's address: raise it when training changes

# How text is cut before byte pairs merge within the pieces: a word takes the one space or mark
# before it (" self", "._", "(x"); digits go by at most three; a run of marks takes the line end
# and the indentation after it ("):\n        "), and line ends with indentation stay together.
# On the standard library at 4,096 ids this gives 3.70 bytes a token, GPT-2's pattern 3.47.
_PIECES = (
    r"[^\r\n\p{L}\p{N}]?\p{L}+"
    r"|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+(?:\r?\n[ \t]*)*"
    r"|(?:\r?\n[ \t]*)+"
    r"|\s+(?!\S)|\s+"
)
# Longer texts are learnt from in parts of so many characters: the trainer needs some 90 bytes for
# each character of a text, and the word at a cut hardly counts.
_PART = 1 << 20
_SCORE_DIGITS = 4
_SCORE_STEP = 1e-4  # between the scores that the trainer makes up for bytes it has not kept


def train_bpe(texts: Iterable[str], vocab_size: int) -> ByteLevelTokenizer:
    """Trains a byte-level BPE (Sennrich et al., 2016) of at most `vocab_size` ids.

    The ids are the specials, the 256 bytes, then the merges in their order. The same texts in the
    same order give the same tokenizer.
    """
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=byte_characters(),
        show_progress=False,
    )
    return ByteLevelTokenizer(_train(models.BPE(), trainer, texts), "the trained tokenizer")


def train_unigram(texts: Iterable[str], vocab_size: int) -> ByteLevelTokenizer:
    """Trains a byte-level Unigram tokenizer (Kudo, 2018) of at most `vocab_size` ids.

    The ids are the specials, then the pieces, likeliest first, every byte among them. The same
    texts give the same tokenizer: see `_settle`.
    """
    trainer = trainers.UnigramTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=byte_characters(),
        show_progress=False,
    )
    content = json.loads(_train(models.Unigram(), trainer, texts))
    content["model"]["vocab"] = _settle(content["model"]["vocab"], vocab_size)
    serialized = json.dumps(content, ensure_ascii=False)
    return ByteLevelTokenizer(serialized, "the trained tokenizer")


TRAINERS: dict[str, Callable[[Iterable[str], int], ByteLevelTokenizer]] = {
    "bpe": train_bpe,
    "unigram": train_unigram,
}
"""What trains each tokenizer that data.tokenizer can name."""


def _train(model: models.Model, trainer: Any, texts: Iterable[str]) -> str:
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.encode_special_tokens = True
    tokenizer.train_from_iterator(_parts(texts), trainer)
    return tokenizer.to_str()


def _parts(texts: Iterable[str]) -> Iterator[str]:
    for text in texts:
        for start in range(0, len(text), _PART):
            yield text[start : start + _PART]


def _settle(pieces: list[tuple[str, float]], vocab_size: int) -> list[tuple[str, float]]:
    """Takes out of a Unigram vocabulary what differs from run to run.

    The trainer sums over its words in an order that changes with the process, so scores differ in
    their last digits; and it gives bytes that it has not kept scores in such an order too. Scores
    are rounded, those bytes all get the lowest one, and equal scores are put in order of spelling.
    """
    learnt = [(piece, score) for piece, score in pieces if piece not in (BOS, EOS)]
    least = min(score for _, score in learnt)
    made_up = least + 257 * _SCORE_STEP

    def settled(piece: str, score: float) -> float:
        return round(least if len(piece) == 1 and score < made_up else score, _SCORE_DIGITS)

    scored = [(piece, settled(piece, score)) for piece, score in learnt]
    # Bytes come first to be kept: there may be more pieces than were asked for.
    scored.sort(key=lambda item: (len(item[0]) > 1, -item[1], item[0]))
    kept = sorted(scored[: vocab_size - 2], key=lambda item: (-item[1], item[0]))
    return [(BOS, 0.0), (EOS, 0.0), *kept]
