"""The stream of batches, a few steps ahead of the training loop."""

import time
from collections.abc import Callable, Mapping

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from sharding.placement import place_rows

_AHEAD = 2  # batches made and moved to the devices before they are asked for


class _Placed:
    """batch(step) on the mesh, as the random-access source that Grain reads."""

    def __init__(
        self,
        mesh: Mesh,
        rows: int,
        steps: int,
        batch: Callable[[int, slice], Mapping[str, np.ndarray]],
    ):
        self._mesh, self._rows, self._steps, self._batch = mesh, rows, steps, batch

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, jax.Array]:
        return place_rows(self._mesh, self._rows, lambda rows: self._batch(step, rows))


class Feed:
    """Batches start, start + 1, ... of `steps`, made by Grain's threads while the devices work.

    There is no state to save: batch(step) is a pure function, and so a feed can start anywhere.

    Args:
      mesh: where the batches go.
      rows: rows of a global batch.
      batch: batch(step, rows) makes those rows of a step's batch.
      start, steps: the first step, and the number of steps of the whole run.
    """

    def __init__(
        self,
        mesh: Mesh,
        rows: int,
        batch: Callable[[int, slice], Mapping[str, np.ndarray]],
        start: int,
        steps: int,
    ):
        source = grain.MapDataset.source(_Placed(mesh, rows, steps, batch))[start:]
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
        self._batches = iter(source.to_iter_dataset(options))

    def next(self) -> tuple[dict[str, jax.Array], float]:
        """The next batch, and the seconds it was waited for."""
        began = time.perf_counter()
        batch = next(self._batches)
        return batch, time.perf_counter() - began
