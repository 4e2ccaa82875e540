"""A small tokenizer of every kind, and texts that are hard for them."""

import argparse
import base64
import functools
import io
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sentencepiece
from hypothesis import strategies as st

from data import tokenizer as T
from data.tokenizing import gpt2
from data.tokenizing.byte_level import byte_characters
from data.tokenizing.rank_file import RankFileTokenizer
from data.tokenizing.sentence_piece import SentencePieceTokenizer

CORPUS = [
    f"def function_{i}(x):\n    if x > {i}:\n        return 'naïve — 漢字 {i}'\n\n"
    f"It's the {i}th time that we'll say: \t«Где же это?»  नमस्ते, 你好，世界。\r\n"
    f"    שלום עולם {i * 977}   👩‍💻👩‍💻 e\u0301te\u0301; HELLO hello Hello\u3000\n"
    for i in range(60)
]

TRAINING = [*CORPUS, Path(argparse.__file__).read_text(encoding="utf-8")]

HARD = [
    "",
    " ",
    "Cafe\u0301 Å \u212b ﬁ ẞ İ ﬀ",  # not in NFC, or changed by NFKC or lower-casing
    "\U00010348\U0001f9ff\U000e0041",  # beyond the basic plane
    "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈",
    "\u202eעברית\u202c \u200fالعربية\u200e",
    "".join(map(chr, range(0x20))) + "\x7f\x80\x85\x9f",
    "a\r\nb\rc\n\r\nd\u2028e\u2029f\x0bg\x0c",
    "\ufeffBOM\ufeff",
    "\u0301\u0308 alone \u093f\u0300",
    "x" + " " * 3000 + "\t" * 300 + "\n" * 300 + "y \u3000\xa0 ",
    f"{T.BOS}{T.EOS}<s></s><unk><|endoftext|><0x41>",
    "\u2581a\u2581\u2581 \u2581",  # what SentencePiece writes for a space
    "\ufffd\ufffe\uffff\U0010ffff",
]

# Any text without surrogates, and text in which the hard cases are likely.
_FRAGMENTS = """ |  |\n|\r\n|\t|    |def|'s|_a|é|e\u0301|\u200d|\u2581|👩\u200d💻|\ufeff|\x00|\
\u2028|ﬁ|It's|你好|，|。|नमस्ते|שלום|\u0301|ΑΒΓ|ſ|'LL|7|12345|.|hello| hello|—|<|<s>""".split("|")
TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.lists(
    st.sampled_from([*_FRAGMENTS, T.BOS, T.EOS]), max_size=30
).map("".join)


def gpt2_pair(
    folder: Path, texts: list[str] = TRAINING, vocab_size: int = 1500
) -> dict[bytes, int]:
    """Writes a pair of GPT-2's form; returns the rank of each token's bytes."""
    model = json.loads(T.train_bpe(texts, vocab_size).serialized)["model"]
    tokens = [*byte_characters(), *("".join(pair) for pair in model["merges"])]
    spelled = dict.fromkeys(tokens)
    ids = {token: i for i, token in enumerate([*spelled, "<|endoftext|>"])}
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    (folder / "encoder.json").write_text(json.dumps(ids))
    (folder / "vocab.bpe").write_text("\n".join(lines) + "\n", encoding="utf-8")
    byte_of = {c: b for b, c in enumerate(byte_characters())}
    return {bytes(byte_of[c] for c in token): ids[token] for token in spelled}


def rank_file(ranks: dict[bytes, int]) -> bytes:
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for token, rank in ranks.items())
    return "".join(lines).encode()


def sentence_piece(**options: Any) -> bytes:
    """A model that loses nothing, unless `options` of the trainer say otherwise."""
    lossless: dict[str, Any] = dict(
        byte_fallback=True, normalization_rule_name="identity", remove_extra_whitespaces=False
    )
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for text in TRAINING for line in text.splitlines()]),
        model_writer=model,
        minloglevel=2,
        num_threads=1,
        **dict(vocab_size=1500, hard_vocab_limit=False, character_coverage=0.99)
        | lossless
        | options,
    )
    return model.getvalue()


@functools.cache
def synthetic_ranks() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return rank_file(gpt2_pair(Path(folder)))


def _gpt2() -> T.Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        gpt2_pair(Path(folder))
        return gpt2.load(Path(folder), gpt2.PAIRS[0])


_MAKE: dict[str, Callable[[], T.Tokenizer]] = {
    "byte": T.ByteTokenizer,
    "bpe": lambda: T.train_bpe(TRAINING, 1500),
    "unigram": lambda: T.train_unigram(TRAINING, 1500),
    "gpt2": _gpt2,
    "sentencepiece_unigram": lambda: SentencePieceTokenizer(sentence_piece(), "x"),
    "sentencepiece_bpe": lambda: SentencePieceTokenizer(
        sentence_piece(model_type="bpe", add_dummy_prefix=False), "x"
    ),
    "cl100k": lambda: RankFileTokenizer(synthetic_ranks(), "cl100k_base", "x"),
    "o200k": lambda: RankFileTokenizer(synthetic_ranks(), "o200k_base", "x"),
}
KINDS = list(_MAKE)


@functools.cache
def of_kind(kind: str) -> T.Tokenizer:
    return _MAKE[kind]()
