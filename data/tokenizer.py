"""Text to token ids and back.

Every tokenizer here is byte-level: ids stand for runs of bytes, any text comes back exactly, and
`token_bytes` says how long each run is, which makes bits per byte an exact figure.
"""

import codecs
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from errors import UserError

TRAINING_VERSION = 1  # part of a trained tokenizer's address: raise it when `train_bpe` changes
BOS, EOS = "<|bos|>", "<|eos|>"

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
_BYTE_FORMAT = "podium-bytes"
_KNOWN_BOS = (BOS, "<|begin_of_text|>", "<bos>", "<s>", "<|endoftext|>")
_KNOWN_EOS = (EOS, "<|end_of_text|>", "<eos>", "</s>", "<|endoftext|>")
# Round-trip probe: non-NFC and astral characters, controls, line ends, runs of white space.
_PROBE = (
    " a  b\t\r\n\n   e\u0301\u00e9 \ufb01\u212b \ud55c\uae00 \U0001f469\u200d\U0001f4bb "
    "\x00\x7f\ufeff 12345 _x__ "
)


class Tokenizer(Protocol):
    """What the rest of Podium needs of a tokenizer.

    Attributes:
      vocab_size: ids are 0 <= id < vocab_size (V).
      bos_id, eos_id: the specials put around a document; they may be the same id.
      special_ids: every id that stands for no text.
      token_bytes: int32 [V], the bytes of text each id stands for; 0 for specials.
      fingerprint: two tokenizers with the same fingerprint give the same ids.
    """

    vocab_size: int
    bos_id: int
    eos_id: int
    special_ids: frozenset[int]
    token_bytes: np.ndarray
    fingerprint: str

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without specials; text that spells a special stays text."""

    def token(self, token_id: int) -> bytes:
        """The bytes that one id stands for; empty for specials and for ids not in use."""

    def save(self, path: Path) -> None:
        """Writes the one file that `load` reads."""


def to_bytes(tokenizer: Tokenizer, ids: Iterable[int]) -> bytes:
    """The bytes that `ids` stand for, without the specials."""
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


class ByteTokenizer:
    """One id a byte, then BOS and EOS: V = 258."""

    vocab_size = 258
    bos_id = 256
    eos_id = 257
    special_ids = frozenset({256, 257})
    fingerprint = "bytes-1"

    def __init__(self) -> None:
        self.token_bytes = np.array([1] * 256 + [0, 0], np.int32)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [list(text.encode()) for text in texts]

    def token(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def save(self, path: Path) -> None:
        path.write_text(json.dumps({"type": _BYTE_FORMAT, "version": 1}) + "\n")


class BpeTokenizer:
    """A byte-level BPE of the `tokenizers` library.

    Args:
      serialized: the content of a `tokenizer.json`.
      origin: where it came from, for messages.

    Raises:
      UserError: it is no tokenizer, has no BOS or EOS that we know, or loses text.
    """

    def __init__(self, serialized: str, origin: str) -> None:
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(serialized)
        except Exception as error:
            raise UserError(
                f"{origin} is not a tokenizer.json that `tokenizers` {tokenizers.__version__} "
                "reads: give the path of one"
            ) from error
        self._tokenizer.encode_special_tokens = True  # text is text, whatever it spells
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._serialized = serialized
        self.fingerprint = hashlib.sha256(serialized.encode()).hexdigest()[:32]
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        added = self._tokenizer.get_added_tokens_decoder()
        self.vocab_size = max(vocabulary.values()) + 1
        self.bos_id = _special(vocabulary, _KNOWN_BOS, "BOS", origin)
        self.eos_id = _special(vocabulary, _KNOWN_EOS, "EOS", origin)
        self.special_ids = frozenset(
            {i for i, token in added.items() if token.special} | {self.bos_id, self.eos_id}
        )
        byte_of = {character: byte for byte, character in enumerate(_byte_characters())}
        self._tokens = [b""] * self.vocab_size
        try:
            for spelling, i in vocabulary.items():
                if i in added and i not in self.special_ids:
                    self._tokens[i] = spelling.encode()
                elif i not in self.special_ids:
                    self._tokens[i] = bytes(byte_of[c] for c in spelling)
        except KeyError as error:
            raise UserError(f"{origin} is not byte-level: give the path of one that is") from error
        self.token_bytes = np.array([len(token) for token in self._tokens], np.int32)
        probe = self.encode_batch([_PROBE])[0]
        if b"".join(self._tokens[i] for i in probe) != _PROBE.encode():
            raise UserError(
                f"{origin} does not give every text back (a normalizer or an unknown token?): "
                "give the path of a lossless byte-level tokenizer"
            )

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        encodings = self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def token(self, token_id: int) -> bytes:
        return self._tokens[token_id] if token_id < self.vocab_size else b""

    def save(self, path: Path) -> None:
        path.write_text(self._serialized)


def train_bpe(texts: Iterable[str], vocab_size: int) -> BpeTokenizer:
    """Trains a byte-level BPE (Sennrich et al., 2016) of at most `vocab_size` ids.

    The ids are the specials, the 256 bytes, then the merges in their order. The same texts in the
    same order give the same tokenizer.
    """
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS],
        initial_alphabet=_byte_characters(),
        show_progress=False,
    )
    tokenizer.encode_special_tokens = True
    tokenizer.train_from_iterator(texts, trainer)
    return BpeTokenizer(tokenizer.to_str(), "the trained tokenizer")


def load(path: Path) -> Tokenizer:
    """Reads what `save` wrote, or any byte-level `tokenizer.json`.

    Raises:
      UserError: there is no such file, or it is not a tokenizer we can use.
    """
    try:
        serialized = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read a tokenizer at {path}: set data.tokenizer to 'bpe', 'byte' or the path "
            "of a tokenizer.json"
        ) from error
    if _BYTE_FORMAT in serialized[:100]:
        return ByteTokenizer()
    return BpeTokenizer(serialized, str(path))


def _special(vocabulary: dict[str, int], known: Sequence[str], role: str, origin: str) -> int:
    for spelling in known:
        if spelling in vocabulary:
            return vocabulary[spelling]
    raise UserError(f"{origin} has no {role} that Podium knows: it knows {', '.join(known)}")


def _byte_characters() -> list[str]:
    """The character that byte-level BPE writes for each byte, by byte (GPT-2's table)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]
