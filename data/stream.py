"""batch(step): the training data as a pure function.

Row r of a run (r = step * batch_size + row in the batch) is a bin of the store: epoch
e = r // n_bins visits the bins in the order of a permutation keyed by (seed, e). Nothing is
remembered between calls, so nothing is saved, and any process computes just the rows it needs.
"""

import numpy as np

from data import cache, packing, permute
from data.packing import Batch
from data.store import TokenStore


class Stream:
    """The batches of a run over one store. Threads may call it together.

    Args:
      store: the tokens.
      sequence_length: T, at least 2.
      batch_size: B, rows of a step over all processes.
      seed: orders the rows of each epoch; 0 <= seed < 2**63.

    Raises:
      ValueError: a size is not positive.
    """

    def __init__(self, store: TokenStore, sequence_length: int, batch_size: int, seed: int) -> None:
        if sequence_length < 2 or batch_size < 1 or not 0 <= seed < 2**63:
            raise ValueError(
                f"cannot stream rows of {sequence_length} tokens, {batch_size} a batch, seed "
                f"{seed}: use at least 2, at least 1, and 0 <= seed < 2**63"
            )
        self.store = store
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self.n_bins = packing.count_bins(store, sequence_length)

    @property
    def fingerprint(self) -> str:
        """Two streams with the same fingerprint give the same batches."""
        return cache.key(
            store=self.store.fingerprint,
            packing=packing.PACKING_VERSION,
            sequence_length=self.sequence_length,
            batch_size=self.batch_size,
            seed=self.seed,
        )

    def epochs(self, step: int) -> float:
        """How many times the store has been seen when `step` steps are done."""
        return step * self.batch_size / self.n_bins

    def bins(self, step: int, rows: slice | None = None) -> np.ndarray:
        """The bins that the rows of a step's batch show: int64 [rows]."""
        if step < 0:
            raise ValueError(f"there is no step {step}")
        wanted = np.arange(*(rows or slice(None)).indices(self.batch_size))
        first = step * self.batch_size  # Python's integer: a step may be any number
        places = [divmod(first + row, self.n_bins) for row in wanted.tolist()]
        epoch_R, bin_R = np.array(places, np.int64).reshape(-1, 2).T.copy()
        for epoch in np.unique(epoch_R).tolist():
            here = epoch_R == epoch
            key = permute.derive_key(self.seed, epoch)
            bin_R[here] = permute.permute(bin_R[here], self.n_bins, key)
        return bin_R

    def batch(self, step: int, rows: slice | None = None) -> Batch:
        """The batch of a step, or just the rows [lo:hi) of it that a process holds.

        Returns:
          See `packing.pack`: arrays [B, T], or [hi - lo, T].
        """
        return packing.pack(self.store, self.bins(step, rows), self.sequence_length)
