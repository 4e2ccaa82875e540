"""The stream of batches, a few steps ahead of the training loop."""

import time
from collections.abc import Mapping
from typing import Protocol

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from sharding.placement import place_rows

_AHEAD = 2  # batches made and moved to the devices before they are asked for


class Batches(Protocol):
    """A pure function from steps to batches, such as data.stream.Stream."""

    def shape(self, step: int) -> tuple[int, int]:
        """Rows of the batch, and tokens of a row."""

    def batch(self, step: int, rows: slice) -> Mapping[str, np.ndarray]:
        """Those rows of the batch."""


class _Placed:
    """batch(step) on the mesh, as the random-access source that Grain reads."""

    def __init__(self, mesh: Mesh, stream: Batches, steps: int):
        self._mesh, self._stream, self._steps = mesh, stream, steps

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, step: int) -> dict[str, jax.Array]:
        rows, _ = self._stream.shape(step)
        return place_rows(self._mesh, rows, lambda some: self._stream.batch(step, some))


class Feed:
    """Batches start, start + 1, ... of `steps`, made by Grain's threads while the devices work.

    There is no state to save: batch(step) is a pure function, and so a feed can start anywhere.

    Args:
      mesh: where the batches go.
      stream: makes the batches.
      start, steps: the first step, and the number of steps of the whole run.
    """

    def __init__(self, mesh: Mesh, stream: Batches, start: int, steps: int):
        source = grain.MapDataset.source(_Placed(mesh, stream, steps))[start:]
        options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=_AHEAD)
        self._batches = iter(source.to_iter_dataset(options))

    def next(self) -> tuple[dict[str, jax.Array], float]:
        """The next batch, and the seconds it was waited for."""
        began = time.perf_counter()
        batch = next(self._batches)
        return batch, time.perf_counter() - began
