"""Held-out pairs with what the reference says of them."""

import functools

import numpy as np

from data import cache
from data.annotations import Annotations, Asked
from data.windows import VERSION, Windows


def asked_of(name: str, windows: Windows, how: str) -> Asked:
    """All rows of an evaluation, to be annotated.

    Args:
      name: for people.
      windows: of the split.
      how: what determines them beside the split and their size.
    """
    batches = [functools.partial(windows.batch, i) for i in range(windows.n_batches)]
    length, count = windows.sequence_length, windows.batch_size
    identity = cache.key(
        windows=windows.store.fingerprint,
        version=VERSION,
        length=length,
        count=count,
        how=how,
        n=len(batches),
    )
    bins = np.arange(len(batches) * count)
    return Asked(name, identity, length, bins, count, batches)


class Answers:
    """Windows whose rows have annotations beside them (see evaluation.perplexity.Rows)."""

    def __init__(self, windows: Windows, annotations: Annotations) -> None:
        self._windows, self._annotations = windows, annotations
        self.n_batches, self.batch_size = windows.n_batches, windows.batch_size
        self.is_examples = windows.is_examples

    def batch(self, index: int, rows: slice | None = None) -> dict[str, np.ndarray]:
        """As of Windows, with the annotations."""
        batch = self._windows.batch(index, rows)
        numbers = np.arange(*(rows or slice(None)).indices(self.batch_size))
        positions = (index * self.batch_size + numbers) * self._windows.sequence_length
        self._annotations.fill(batch, np.arange(numbers.size), positions)
        return batch
