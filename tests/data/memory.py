"""Stores in memory, whose every token is its own place: what a row shows can be told from it."""

from collections.abc import Sequence

import numpy as np

from data import cache


class MemoryStore:
    """What a stream reads of a TokenStore; token i of the store is the number i."""

    bos_id = -1
    prefix_bytes = 0
    unit = 1
    is_examples = False

    def __init__(self, positions: Sequence[int], name: str = "") -> None:
        """positions: of each document, which has one token more."""
        self.token_offsets = np.concatenate([[0], np.cumsum(np.array(positions) + 1)])
        self.n_documents = len(positions)
        self.n_tokens = int(self.token_offsets[-1])
        self.token_bytes = np.arange(self.n_tokens, dtype=np.int32) % 5
        self.fingerprint = cache.key(name=name, positions=repr(list(positions)))

    def read(self, start: int, stop: int) -> np.ndarray:
        return np.arange(start, stop, dtype=np.uint32)
