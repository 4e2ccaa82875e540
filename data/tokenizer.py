"""Text to token ids and back.

In every tokenizer here ids stand for runs of bytes, any text comes back exactly, and `token_bytes`
says how long each run is, which makes bits per byte an exact figure. The kinds are in
`data/tokenizing/`; what the rest of Podium uses is here.
"""

import codecs
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from data.tokenizing.byte import ByteTokenizer
from data.tokenizing.byte_level import BOS, EOS, ByteLevelTokenizer
from data.tokenizing.loading import load
from data.tokenizing.rank_file import RankFileTokenizer
from data.tokenizing.sentence_piece import SentencePieceTokenizer
from data.tokenizing.training import TRAINERS, TRAINING_VERSION, train_bpe, train_unigram

__all__ = [
    "BOS",
    "EOS",
    "TRAINERS",
    "TRAINING_VERSION",
    "ByteLevelTokenizer",
    "ByteTokenizer",
    "RankFileTokenizer",
    "SentencePieceTokenizer",
    "StreamingDecoder",
    "Tokenizer",
    "decode",
    "load",
    "to_bytes",
    "train_bpe",
    "train_unigram",
]


class Tokenizer(Protocol):
    """What the rest of Podium needs of a tokenizer. It can be pickled.

    Attributes:
      vocab_size: ids are 0 <= id < vocab_size (V).
      bos_id, eos_id: the specials put around a document; they may be the same id.
      special_ids: every id that stands for no text, ids that are not in use included.
      token_bytes: int32 [V], the bytes of text each id stands for; 0 for those of no text.
      prefix_bytes: 1 if the ids of a text, unless it is empty, stand for the text with one space
        before it (SentencePiece with add_dummy_prefix); 0 elsewhere.
      fingerprint: two tokenizers with the same fingerprint give the same ids.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    special_ids: frozenset[int]
    token_bytes: np.ndarray
    prefix_bytes: int
    fingerprint: str

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """The ids of each text, uint32, without specials; what spells a special stays text."""

    def encode_inner(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Likewise, of texts that do not begin a document: nothing is put before them."""

    def token(self, token_id: int) -> bytes:
        """The bytes that one id stands for; empty for specials and for ids not in use."""

    def save(self, path: Path) -> None:
        """Writes the one file that `load` reads."""


def to_bytes(tokenizer: Tokenizer, ids: Iterable[int]) -> bytes:
    """The bytes that `ids` stand for, without the specials; a document's with its prefix."""
    return b"".join(tokenizer.token(int(i)) for i in ids)


def decode(tokenizer: Tokenizer, ids: Iterable[int]) -> str:
    """The text of `ids`, without the specials; bytes that are not UTF-8 become U+FFFD."""
    return to_bytes(tokenizer, ids).decode(errors="replace")


class StreamingDecoder:
    """Turns ids that arrive one by one into text, holding back unfinished characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def add(self, token_id: int) -> str:
        """The text that this id completes; may be empty."""
        return self._decoder.decode(self._tokenizer.token(token_id))

    def end(self) -> str:
        """What is still held back, as U+FFFD."""
        return self._decoder.decode(b"", final=True)
