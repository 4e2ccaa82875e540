"""Rows of one length, cut from the store's tokens: concatenate and split.

The documents of a store stand one after the other; bin i of length T has the inputs
tokens[i*T : (i+1)*T] and the targets one place on. So every token but the BOS of each document is
a target exactly once an epoch, none is dropped, and only the last bin is padded. A document that a
row cuts goes on in the next bin, as a document piece without the context before the cut.
"""

import numpy as np

from data.store import TokenStore

PACKING_VERSION = 1  # part of the stream's identity: raise it when any row changes

Batch = dict[str, np.ndarray]


def count_bins(store: TokenStore, sequence_length: int) -> int:
    """How many rows one epoch has; at least 1."""
    return -(-(store.n_tokens - 1) // sequence_length)


def pack(store: TokenStore, bins: np.ndarray, sequence_length: int) -> Batch:
    """The rows of some bins.

    Args:
      bins: int64 [B], each in range(count_bins(store, sequence_length)).
      sequence_length: T.

    Returns:
      Arrays [B, T]: "tokens", "targets", "segments" (from 1 in each row, 0 on padding),
      "positions" (from 0 at each document and at the row's start), "bytes" (of the target's text),
      all int32; "weights", float32: 1 where the target is to be predicted, 0 on padding and where
      the next document's BOS would be.
    """
    starts = bins.astype(np.int64) * sequence_length
    width = sequence_length + 1  # inputs and targets overlap
    window = np.zeros((starts.size, width), np.int32)
    for row, start in zip(window, starts.tolist(), strict=True):
        piece = store.tokens[start : start + width]
        row[: piece.size] = piece

    # Document starts in each row, as (row, column). The end of the store counts as one: what
    # stands there is no target either.
    first = np.searchsorted(store.token_offsets, starts)
    last = np.searchsorted(store.token_offsets, starts + width)
    counts = last - first
    rows = np.repeat(np.arange(starts.size), counts)
    within = np.arange(rows.size) - np.repeat(np.cumsum(counts) - counts, counts)
    columns = store.token_offsets[np.repeat(first, counts) + within] - starts[rows]
    begins = np.zeros(window.shape, np.bool_)
    begins[rows, columns] = True

    column = np.arange(sequence_length, dtype=np.int32)
    segments = np.cumsum(begins[:, :-1], axis=1, dtype=np.int32)
    segments += 1 - segments[:, :1]  # a row that starts inside a document starts with segment 1
    positions = column - np.maximum.accumulate(
        np.where(begins[:, :-1], column, np.int32(0)), axis=1
    )
    is_target = ~begins[:, 1:]
    lengths = store.n_tokens - starts  # tokens from each row's start to the end of the store
    if lengths.min(initial=width) <= sequence_length:
        padding = column >= lengths[:, None]
        segments[padding] = 0
        positions[padding] = 0
        is_target &= column + 1 < lengths[:, None]
    targets = np.ascontiguousarray(window[:, 1:])
    return {
        "tokens": np.ascontiguousarray(window[:, :-1]),
        "targets": targets,
        "segments": segments,
        "positions": positions,
        "weights": is_target.astype(np.float32),
        "bytes": store.token_bytes[targets] * is_target,
    }
