"""Documents that hold text which is evaluated on: an n-gram of words in common (Brown et al. 2020).

Words are letters and digits, in lower case; n-grams are kept as 64-bit hashes, sorted, in a file
that every process maps.
"""

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from data import checksums
from data.documents import Document
from data.filters.config import FilterConfig

LAYOUT = 2  # part of the address of n-grams: raise it when their files change
_WORD = re.compile(r"[^\W_]+")
_WORDS = 1 << 16  # at a time
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: 2**64 / golden ratio


def make(config: FilterConfig, overlaps: Path | None) -> "Overlap | None":
    """The filter, if it is on."""
    if not config.decontaminate:
        return None
    assert overlaps is not None
    return Overlap(overlaps, config.decontaminate)


def save(texts: Iterable[str], n: int, path: Path) -> None:
    """Writes the n-grams of `texts`: uint64, ascending, as .npy."""
    parts = [np.unique(some) for text in texts for some in ngrams(text, n)]
    np.save(path, np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.uint64))


class Overlap:
    """The filter.

    Args:
      path: of what `save` wrote.
      n: words of an n-gram, as there.

    Raises:
      UserError: the file is missing or damaged.
    """

    def __init__(self, path: Path, n: int) -> None:
        try:
            self._known: np.ndarray = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise checksums.damaged(path) from error
        self._n = n

    def __call__(self, document: Document, counts: Counter[str]) -> Document | None:
        for here in ngrams(document.text, self._n) if self._known.size else ():
            place = np.searchsorted(self._known, here) % self._known.size
            if (self._known[place] == here).any():
                counts["dropped: overlap with what is evaluated on"] += 1
                return None
        return document


def ngrams(text: str, n: int) -> Iterator[np.ndarray]:
    """A hash of every n words that follow each other: uint64, in parts, of a text of any length."""
    found = (match[0].lower() for match in _WORD.finditer(text))
    words = list(itertools.islice(found, _WORDS))
    while len(words) >= n:
        yield _hashes(words, n)
        words = [*words[len(words) - n + 1 :], *itertools.islice(found, _WORDS)]


def _hashes(words: Sequence[str], n: int) -> np.ndarray:
    distinct = {word: i for i, word in enumerate(dict.fromkeys(words))}
    digests = b"".join(hashlib.blake2b(word.encode(), digest_size=8).digest() for word in distinct)
    hashes = np.frombuffer(digests, "<u8")[[distinct[word] for word in words]]
    total = np.zeros(len(words) - n + 1, np.uint64)
    for i in range(n):  # a polynomial in the factor, modulo 2**64
        total = total * _FACTOR + hashes[i : i + total.size]
    return total
