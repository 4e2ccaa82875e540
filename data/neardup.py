"""Near-duplicate documents, so that none of them ends up on both sides of a split.

Two documents are near-duplicates when the Jaccard similarity of their shingles (runs of
`SHINGLE` consecutive words or marks) is at least `THRESHOLD`; clusters are the connected
components. The similarity is exact, not an estimate: every pair that shares a shingle is
counted, which a few thousand documents allow (Broder, "On the resemblance and containment of
documents", 1997, has the definition and the sketches for larger collections).
"""

import re
import zlib
from collections.abc import Sequence

import numpy as np

SHINGLE = 5
THRESHOLD = 0.3
_WORD = re.compile(r"\w+|[^\w\s]")


def shingles(text: str) -> np.ndarray:
    """The sorted distinct shingles of a text, as 64-bit hashes: uint64 [n], n >= 1."""
    found = _WORD.findall(text)
    code = {word: zlib.crc32(word.encode()) for word in set(found)}
    words = np.array([code[word] for word in found], np.uint64)
    if words.size < SHINGLE:  # too short for a shingle: the whole text is one
        words = np.pad(words, (0, SHINGLE - words.size))
    hashes = np.zeros(words.size - SHINGLE + 1, np.uint64)
    for i in range(SHINGLE):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words[i : i + hashes.size]
    return np.unique(hashes)


def clusters(texts: Sequence[str], threshold: float = THRESHOLD) -> list[list[int]]:
    """Groups the indices of `texts` into clusters of near-duplicates.

    Memory and time grow with the square of the number of texts that share a shingle: meant for
    a few thousand texts.

    Returns:
      Clusters by their first index, each in ascending order; a text without near-duplicates is a
      cluster of its own.
    """
    sets = [shingles(text) for text in texts]
    sizes = np.array([s.size for s in sets], np.int64)
    n = len(sets)
    shingle = np.concatenate(sets) if sets else np.zeros(0, np.uint64)
    document = np.repeat(np.arange(n), sizes)
    order = np.argsort(shingle, kind="stable")
    shingle, document = shingle[order], document[order]
    # Documents of one shingle are now neighbours: compare each entry with the one d places on,
    # for d = 1, 2, ... until no run of equal shingles is that long.
    shared = np.zeros(n * n, np.int32)
    entry = np.arange(shingle.size)
    for d in range(1, n):
        entry = entry[: np.searchsorted(entry, shingle.size - d)]
        entry = entry[shingle[entry] == shingle[entry + d]]
        if not entry.size:
            break
        np.add.at(shared, document[entry] * n + document[entry + d], 1)
    first, second = np.divmod(np.flatnonzero(shared), max(n, 1))
    common = shared[first * n + second]
    near = common >= threshold * (sizes[first] + sizes[second] - common)

    leader = list(range(n))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = i = leader[leader[i]]
        return i

    for a, b in zip(first[near].tolist(), second[near].tolist(), strict=True):
        low, high = sorted((find(a), find(b)))
        leader[high] = low
    members: dict[int, list[int]] = {}
    for i in range(n):
        members.setdefault(find(i), []).append(i)
    return list(members.values())
