"""Rows of a batch from pieces of documents."""

import numpy as np

from data.plan import Pieces
from data.store import TokenStore

Batch = dict[str, np.ndarray]
_INTEGERS = ("tokens", "targets", "segments", "positions", "bytes")


def empty(rows: int, width: int) -> Batch:
    """Rows of padding.

    Returns:
      Arrays [rows, width]: "tokens", "targets", "segments" (from 1 in each row, 0 on padding),
      "positions" (from 0 where a piece of a document begins), "bytes" (of the target's text), all
      int32; "weights", float32: 1 where the target is to be predicted, 0 on padding. Of examples
      those targets have weights, and bytes, that are learned; of pairs, the better answer of each
      has an odd segment, and the other one the next.
    """
    batch = {name: np.zeros((rows, width), np.int32) for name in _INTEGERS}
    batch["weights"] = np.zeros((rows, width), np.float32)
    return batch


def fill(batch: Batch, rows: np.ndarray, pieces: Pieces, store: TokenStore) -> None:
    """Writes pieces of one store into some rows of a batch of padding.

    Args:
      rows: int64 [R], the row of the batch for each of the rows that `pieces` speaks of.
    """
    width = batch["tokens"].shape[1]
    flat = {name: batch[name].reshape(-1) for name in (*_INTEGERS, "weights")}
    tokens, targets, segments, positions, text_bytes, weights = flat.values()
    count = np.arange(width, dtype=np.int32)
    segment, before = 0, -1
    # Few calls a piece, on stretches of memory: faster than arrays of indices for all of them.
    for row, column, start, n in zip(*(array.tolist() for array in pieces), strict=True):
        segment, before = segment + 1 if row == before else 1, row
        place = int(rows[row]) * width + column
        here = slice(place, place + n)
        window = store.read(start, start + n + 1)
        tokens[here] = window[:-1]
        targets[here] = window[1:]
        segments[here] = segment
        positions[here] = count[:n]
        text_bytes[here] = store.token_bytes[window[1:]]
        if store.is_examples:  # what is put before a text is before no answer
            learned = store.learned(start + 1, start + n + 1)
            weights[here] = learned
            text_bytes[here] *= learned
            continue
        weights[here] = 1
        if window[0] == store.bos_id and text_bytes[place]:
            text_bytes[place] -= store.prefix_bytes
