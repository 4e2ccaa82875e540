"""Near-duplicate documents, so that none of them ends up on both sides of a split.

Two documents are near-duplicates when the Jaccard similarity of their shingles (runs of
`SHINGLE` consecutive words or marks) is at least `THRESHOLD`; clusters are the connected
components. The similarity is exact, not an estimate: every pair that shares a shingle is
counted, which a few thousand documents allow (Broder, "On the resemblance and containment of
documents", 1997, has the definition and the sketches for larger collections).
"""

import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

SHINGLE = 5
THRESHOLD = 0.3
_PARTNERS = 1 << 20  # entries compared at a time
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

    Memory grows with the shingles of all texts, time also with the square of the number of texts
    that share a shingle.

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
    leader = list(range(n))

    def find(i: int) -> int:
        while leader[i] != i:
            leader[i] = i = leader[leader[i]]
        return i

    for i, common in enumerate(_shared(shingle, document, n)):
        near = (common > 0) & (common >= threshold * (sizes[i] + sizes - common))
        for j in np.flatnonzero(near).tolist():
            low, high = sorted((find(i), find(j)))
            leader[high] = low
    members: dict[int, list[int]] = {}
    for i in range(n):
        members.setdefault(find(i), []).append(i)
    return list(members.values())


def _shared(shingle: np.ndarray, document: np.ndarray, n: int) -> Iterator[np.ndarray]:
    """For each document, how many shingles every later document has in common with it.

    Args:
      shingle: uint64 [E], ascending.
      document: int64 [E], the document of each entry, ascending among equal shingles.
      n: documents.

    Yields:
      int64 [n] for each document in turn; 0 for itself and for earlier ones.
    """
    # Entries of one shingle are neighbours: those after an entry, up to `end`, are its partners.
    end = np.searchsorted(shingle, shingle, side="right")
    entries = np.argsort(document, kind="stable")
    limits = np.searchsorted(document[entries], np.arange(n + 1))
    for i in range(n):
        mine = entries[limits[i] : limits[i + 1]]
        mine = mine[end[mine] - mine > 1]
        common = np.zeros(n, np.int64)
        while mine.size:
            counts = end[mine] - mine - 1
            # As many entries as fit, and at least one: no more than _PARTNERS + n at a time.
            some = max(1, int(np.searchsorted(np.cumsum(counts), _PARTNERS, side="right")))
            counts, first, mine = counts[:some], mine[:some] + 1, mine[some:]
            before = np.repeat(np.cumsum(counts) - counts, counts)
            partners = np.repeat(first, counts) + np.arange(before.size) - before
            common += np.bincount(document[partners], minlength=n)
        yield common
