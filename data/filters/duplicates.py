"""Documents that are copies of an earlier one, to the letter or nearly."""

import hashlib
import itertools
import re
from collections.abc import Iterable, Iterator

import numpy as np

from data import packages
from data.filters.config import INSTALL

_SHINGLE = 5  # words
_PERMUTATIONS = 128
_WORD = re.compile(r"\S+")
_WORDS = 1 << 14  # at a time


class Exact:
    """Documents with the same text. Needs about 80 bytes of memory for each that stays."""

    name = "exact duplicate"
    width = 16

    def signature(self, text: str) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=self.width).digest()

    def find(self, signatures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        seen: set[bytes] = set()
        for some in signatures:
            copies = np.zeros(len(some), np.bool_)
            for i, row in enumerate(some):
                signature = row.tobytes()
                copies[i] = signature in seen
                seen.add(signature)
            yield copies


class Near:
    """Documents that share most of their shingles of five words (Broder 1997; MinHash and its
    index are datasketch's). Needs about 5 kB of memory for each that stays.

    Args:
      threshold: the Jaccard similarity, estimated by MinHash, from which one is a copy.
    """

    name = "near duplicate"
    width = 4 * _PERMUTATIONS

    def __init__(self, threshold: float) -> None:
        self._datasketch = packages.needed(
            "datasketch", "datasketch", "config.data.filters.near_duplicates", INSTALL
        )
        self._threshold = threshold

    def signature(self, text: str) -> bytes:
        sketch = self._empty()
        found = (match[0].lower() for match in _WORD.finditer(text))
        words = list(itertools.islice(found, _WORDS))
        while True:
            shingles = {
                " ".join(words[i : i + _SHINGLE]) for i in range(max(1, len(words) - _SHINGLE + 1))
            }
            sketch.update_batch([shingle.encode() for shingle in shingles])
            more = list(itertools.islice(found, _WORDS))
            if not more:
                return sketch.hashvalues.astype("<u4").tobytes()
            words = [*words[len(words) - _SHINGLE + 1 :], *more]

    def find(self, signatures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        index = self._datasketch.MinHashLSH(threshold=self._threshold, num_perm=_PERMUTATIONS)
        kept: list[np.ndarray] = []
        for some in signatures:
            copies = np.zeros(len(some), np.bool_)
            for i, row in enumerate(np.ascontiguousarray(some).view("<u4")):
                sketch = self._empty(row.astype(np.uint64))
                copies[i] = any(
                    np.mean(kept[other] == row) >= self._threshold for other in index.query(sketch)
                )
                if not copies[i]:
                    index.insert(len(kept), sketch)
                    kept.append(row.copy())
            yield copies

    def _empty(self, hashvalues: np.ndarray | None = None):  # type: ignore[no-untyped-def]
        return self._datasketch.MinHash(
            num_perm=_PERMUTATIONS, seed=1, scheme="affine32", hashvalues=hashvalues
        )
