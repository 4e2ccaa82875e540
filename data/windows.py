"""Evaluation windows: every token of a split is scored once, whatever the batch or the packer.

A document of m tokens (BOS ... EOS) has m - 1 targets: every token but BOS. Window k of it has the
inputs [k * stride, k * stride + T) and scores the targets that no earlier window scored, so that
beyond the first window every target has at least T - stride inputs before it. Windows go into rows
of T next-fit, each as a segment of its own, so that short documents share a row. Rows do not
depend on the batch size, and batches are found by index: no state, as in `Stream`.

Of examples those targets are scored that are learned. The two of a pair share a row, where the
better one has an odd segment and the other one the next.
"""

import numpy as np

from data import permute
from data.rows import Batch
from data.store import TokenStore

VERSION = 1  # part of what is kept of rows: raise it when they are cut or packed in another way


class Windows:
    """The batches of an evaluation over one store. Threads may call it together.

    Args:
      store: the tokens.
      sequence_length: T, at least 2.
      batch_size: B, rows of a batch; the last batch is padded.
      stride: 1 <= stride <= T; T // 2 if not given. Smaller strides score with more context and
        cost more.
      max_tokens: score only the windows, of documents in a fixed shuffled order, that fit in this
        many targets, of examples learned or not (but at least one window, or pair); all if not
        given.

    Attributes:
      is_examples: whether those are of examples.
      n_batches: how many batches there are.
      n_tokens: how many targets they score.
      n_bytes: how many bytes of text those stand for.

    Raises:
      ValueError: a size is out of range.
    """

    def __init__(
        self,
        store: TokenStore,
        sequence_length: int,
        batch_size: int,
        stride: int | None = None,
        max_tokens: int | None = None,
    ) -> None:
        if stride is None:
            stride = sequence_length // 2
        if sequence_length < 2 or batch_size < 1 or not 1 <= stride <= sequence_length:
            raise ValueError(
                f"cannot evaluate rows of {sequence_length} tokens, {batch_size} a batch, stride "
                f"{stride}: use at least 2, at least 1, and 1 <= stride <= sequence_length"
            )
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"cannot score {max_tokens} tokens: use at least 1")
        if store.unit > 1:
            longest = int((np.diff(store.token_offsets) - 1).reshape(-1, store.unit).sum(1).max())
            if longest > sequence_length:
                raise ValueError(
                    f"cannot evaluate rows of {sequence_length} tokens: a pair has {longest}, and "
                    "lies in one row"
                )
        self.store = store
        self.is_examples = store.is_examples
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self._start, self._length, self._skip, self._first = _cut(
            store, sequence_length, stride, max_tokens
        )
        self._row, self._column = _next_fit(self._length, sequence_length, store.unit)
        self.n_batches = -(-(int(self._row[-1]) + 1) // batch_size)
        scored = zip(
            (self._start + self._skip + 1).tolist(),
            (self._start + self._length + 1).tolist(),
            strict=True,
        )
        if store.is_examples:
            self.n_tokens = self.n_bytes = 0
            for first, end in scored:
                learned = store.learned(first, end)
                self.n_tokens += int(learned.sum())
                self.n_bytes += int(store.token_bytes[store.read(first, end)][learned].sum())
        else:
            self.n_tokens = int((self._length - self._skip).sum())
            text_bytes = (int(store.token_bytes[store.read(*some)].sum()) for some in scored)
            prefixes = int((self._first & (self._length > 1)).sum())
            self.n_bytes = sum(text_bytes) - store.prefix_bytes * prefixes

    def batch(self, index: int, rows: slice | None = None) -> Batch:
        """Batch `index`, or just the rows [lo:hi) of it that a process holds.

        Returns:
          Arrays as of `rows.empty`: [B, T], or [hi - lo, T]; weights are 1 on scored targets.
        """
        if not 0 <= index < self.n_batches:
            raise ValueError(f"there is no batch {index}: there are {self.n_batches}")
        low, high, step = (rows or slice(None)).indices(self.batch_size)
        if step != 1:
            raise ValueError("rows are a slice with step 1")
        shape = (high - low, self.sequence_length)
        ints = ("tokens", "targets", "segments", "positions", "bytes")
        batch: Batch = {name: np.zeros(shape, np.int32) for name in ints}
        batch["weights"] = np.zeros(shape, np.float32)
        first_row = index * self.batch_size + low
        first, last = np.searchsorted(self._row, (first_row, first_row + shape[0]))
        segment, row_before = 0, -1
        for w in range(first, last):
            row, column = int(self._row[w]) - first_row, int(self._column[w])
            start, length, skip = int(self._start[w]), int(self._length[w]), int(self._skip[w])
            segment = segment + 1 if row == row_before else 1
            row_before = row
            place = row, slice(column, column + length)
            scored = row, slice(column + skip, column + length)
            piece = self.store.read(start, start + length + 1)
            batch["tokens"][place] = piece[:-1]
            batch["targets"][place] = piece[1:]
            batch["segments"][place] = segment
            batch["positions"][place] = np.arange(length)
            batch["weights"][scored] = 1
            batch["bytes"][scored] = self.store.token_bytes[piece[1 + skip :]]
            if self.store.is_examples:
                learned = self.store.learned(start + skip + 1, start + length + 1)
                batch["weights"][scored] = learned
                batch["bytes"][scored] *= learned
            elif self._first[w] and batch["bytes"][row, column]:
                batch["bytes"][row, column] -= self.store.prefix_bytes
        return batch


def _cut(
    store: TokenStore, sequence_length: int, stride: int, max_tokens: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """All windows: where each starts in the store, its inputs, the targets already scored, and
    whether it is the first of its document."""
    documents = _order(store, max_tokens)
    first = store.token_offsets[documents]
    targets = store.token_offsets[documents + 1] - first - 1  # of each document
    counts = 1 + np.maximum(0, -(-(targets - sequence_length) // stride))
    which = np.repeat(np.arange(targets.size), counts)
    k = np.arange(which.size) - np.repeat(np.cumsum(counts) - counts, counts)
    start = first[which] + k * stride
    length = np.minimum(sequence_length, targets[which] - k * stride)
    skip = np.where(k == 0, 0, sequence_length - stride)
    if max_tokens is not None:
        fits = int(np.searchsorted(np.cumsum(length - skip), max_tokens, side="right"))
        kept = slice(0, max(fits // store.unit, 1) * store.unit)
        start, length, skip, k = start[kept], length[kept], skip[kept], k[kept]
    return start, length, skip, k == 0


def _order(store: TokenStore, max_tokens: int | None) -> np.ndarray:
    """The documents in a fixed order that is unrelated to the store's, so that some are like all;
    only as many as the budget can reach."""
    unit = store.unit
    n = store.n_documents // unit
    some = n if max_tokens is None else min(n, 1024)
    while True:
        order = permute.permute(np.arange(some), n, permute.DOCUMENTS)
        documents = (order[:, None] * unit + np.arange(unit)).reshape(-1)
        if some == n:
            return documents
        targets = store.token_offsets[documents + 1] - store.token_offsets[documents] - 1
        if targets.sum() > max_tokens:
            return documents
        some = min(n, 4 * some)


def _next_fit(length: np.ndarray, sequence_length: int, unit: int) -> tuple[np.ndarray, np.ndarray]:
    """The row and the column of each window: a new row when the last one has no room, where a unit
    of windows begins for all of it."""
    row, column = np.zeros_like(length), np.zeros_like(length)
    needed = np.repeat(length.reshape(-1, unit).sum(axis=1), unit).tolist()
    at_row = at_column = 0
    for w, n in enumerate(length.tolist()):
        if w % unit == 0 and at_column + needed[w] > sequence_length:
            at_row, at_column = at_row + 1, 0
        row[w], column[w] = at_row, at_column
        at_column += n
    return row, column
