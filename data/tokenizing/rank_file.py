"""Rank files of the package tiktoken: lines of "base64 rank", without pattern and specials.

The package itself encodes, so the ids are its own. (Merges for `tokenizers` made from ranks differ
where one token can be made of several pairs.)
"""

import base64
import binascii
import concurrent.futures
import hashlib
import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.tokenizing import lossless
from errors import UserError

FORMAT = "podium-tiktoken"  # the "type" of the file that `save` writes
_WORTH_THREADS = 1 << 14  # characters
_LINE = re.compile(rb"[A-Za-z0-9+/]+={0,2} [0-9]+\r?(\n|$)")

# The published patterns, with two additions that change no piece: possessive repetitions, and a
# white-space run at the end matched at once (`\s++$`), which would overflow the library's stack.
_R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s"
_WORDS = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"
_CL100K = _WORDS + r"|\s++$|\s*[\r\n]|\s+(?!\S)|\s"
_LLAMA3 = _WORDS + r"|\s*[\r\n]+|\s++$|\s+(?!\S)|\s"
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
_O200K = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+{_ENDINGS}"
    rf"|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*{_ENDINGS}"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s++$|\s+(?!\S)|\s"
)
# Longer runs before a word overflow it too: `_encode` cuts around them. The runs are of any white
# space, or of what follows the last line end in it, which ends a piece.
_OVERFLOW = 500_000
_ANY_RUN = re.compile(rf"[^\S\x1c-\x1f]{{{_OVERFLOW},}}(?=[\S\x1c-\x1f])")
_LINE_RUN = re.compile(rf"[^\S\r\n\x1c-\x1f]{{{_OVERFLOW},}}(?=[\S\x1c-\x1f])")


@dataclass(frozen=True)
class Encoding:
    """What a rank file leaves out.

    Attributes:
      ranks: how many a published file has.
      pattern: cuts text before bytes merge within the pieces.
      run: white space that ends at a word and may overflow the library.
      bos, eos: their ids, counted from the number of ranks.
      extra: ids beyond the ranks, gaps included.
    """

    ranks: int
    pattern: str
    run: re.Pattern[str]
    bos: int
    eos: int
    extra: int


ENCODINGS = {
    "r50k_base": Encoding(50256, _R50K, _ANY_RUN, bos=0, eos=0, extra=1),
    "cl100k_base": Encoding(100256, _CL100K, _LINE_RUN, bos=1, eos=1, extra=21),
    "o200k_base": Encoding(199998, _O200K, _LINE_RUN, bos=1, eos=1, extra=21),
    "llama3": Encoding(128000, _LLAMA3, _LINE_RUN, bos=0, eos=1, extra=256),
}


def is_rank_file(content: bytes) -> bool:
    return _LINE.match(content) is not None


class RankFileTokenizer:
    """A rank file with one of the `ENCODINGS`.

    Args:
      content: of the file.
      name: of the encoding; None tells it by the number of ranks.
      origin: where it came from, for messages.

    Raises:
      UserError: it is not such a file, or its encoding is not known.
    """

    prefix_bytes = 0

    def __init__(self, content: bytes, name: str | None, origin: str) -> None:
        ranks = _ranks(content, origin)
        by_count = (known for known, e in ENCODINGS.items() if e.ranks == len(ranks))
        found = name or next(by_count, None)
        if found not in ENCODINGS:
            known = ", ".join(ENCODINGS)
            raise UserError(
                f"the encoding of {origin} with {len(ranks)} ranks is not known: write its path as "
                f"PATH:NAME, where NAME is one of {known}"
            )
        try:
            import tiktoken
        except ImportError as error:
            raise UserError(
                f"{origin} needs the package tiktoken: `make setup TOKENIZERS=1`"
            ) from error
        encoding = ENCODINGS[found]
        self._name, self._content, self._run = found, content, encoding.run
        self.vocab_size = len(ranks) + encoding.extra
        self.bos_id, self.eos_id = len(ranks) + encoding.bos, len(ranks) + encoding.eos
        self._tokens = [*sorted(ranks, key=ranks.__getitem__), *[b""] * encoding.extra]
        self.special_ids = frozenset(range(len(ranks), self.vocab_size))
        self.token_bytes = np.array([len(token) for token in self._tokens], np.int32)
        self.fingerprint = hashlib.sha256(f"tiktoken-1 {found}\0".encode() + content).hexdigest()[
            :32
        ]
        self._library = tiktoken.Encoding(
            found, pat_str=encoding.pattern, mergeable_ranks=ranks, special_tokens={}
        )
        lossless.check(self.encode_batch, self._tokens, "", origin)

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        if sum(map(len, texts)) < _WORTH_THREADS:
            return [self._encode(text) for text in texts]
        # Threads of one call: a pool that stays would not outlive a fork.
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self._encode, texts))

    def encode_inner(self, texts: Sequence[str]) -> list[np.ndarray]:
        return self.encode_batch(texts)

    def _encode(self, text: str) -> np.ndarray:
        cuts = [0]
        if len(text) > _OVERFLOW:
            for run in self._run.finditer(text):
                cuts += [run.start(), run.end() - 1]  # the last one goes with the word
        parts = (text[a:b] for a, b in itertools.pairwise([*cuts, len(text)]))
        return np.concatenate([self._ids(part) for part in parts])

    def _ids(self, text: str) -> np.ndarray:
        return np.array(self._library.encode_ordinary(text), np.uint32)

    def token(self, token_id: int) -> bytes:
        return self._tokens[token_id] if token_id < self.vocab_size else b""

    def __reduce__(self) -> tuple[Any, ...]:
        return RankFileTokenizer, (self._content, self._name, "the tokenizer")

    def save(self, path: Path) -> None:
        content = {"type": FORMAT, "version": 1, "encoding": self._name}
        path.write_text(json.dumps(content | {"ranks": self._content.decode()}) + "\n")


def from_saved(saved: dict[str, Any], origin: str) -> RankFileTokenizer:
    """From the content of the file that `save` wrote.

    Raises:
      UserError: it is damaged; other errors as RankFileTokenizer.
    """
    try:
        content, name = saved["ranks"].encode(), str(saved["encoding"])
    except (KeyError, AttributeError) as error:
        raise UserError(f"{origin} is damaged: copy it again from where it came") from error
    return RankFileTokenizer(content, name, origin)


def _ranks(content: bytes, origin: str) -> dict[bytes, int]:
    """The rank of each token: 0, 1, ... without gaps, every single byte among the tokens."""
    ranks: dict[bytes, int] = {}
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise UserError(
                f"line {number} of {origin} is not 'base64 rank': copy the file again"
            ) from error
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise UserError(f"the ranks of {origin} are not 0, 1, 2, ...: copy the file again")
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise UserError(f"{origin} lacks some of the 256 bytes: give a file with all of them")
    return ranks
