"""The feed: the stream's batches, in order, from anywhere to the end, on any mesh."""

from typing import Any

import jax
import numpy as np
import pytest

from sharding.config import MeshConfig
from sharding.feed import Feed
from sharding.mesh import make_mesh

STEPS, ROWS = 7, 16


def rows_of(step: int, rows: slice) -> dict[str, np.ndarray]:
    """Every row of every step is different."""
    row = np.arange(ROWS, dtype=np.int32)[rows]
    return {"tokens": 1000 * step + 10 * row[:, None] + np.arange(3, dtype=np.int32), "row": row}


class Stream:
    """Batches of one shape."""

    def __init__(self, batch) -> None:
        self.batch = batch

    def shape(self, step: int) -> tuple[int, int]:
        return ROWS, 3


def feed(start: int = 0, batch=rows_of, **sizes: Any) -> Feed:
    mesh = make_mesh(MeshConfig(**{"data": 1, "fsdp": 1, "tensor": 1, **sizes}))
    return Feed(mesh, Stream(batch), start, STEPS)


@pytest.mark.parametrize(
    "sizes", [dict(data=8), dict(fsdp=8), dict(tensor=8), dict(data=2, fsdp=2, tensor=2)], ids=str
)
@pytest.mark.parametrize("start", [0, 3])
def test_the_batches_of_the_stream_in_order(sizes, start):
    batches = feed(start, **sizes)
    for step in range(start, STEPS):
        batch, waited = batches.next()
        assert waited >= 0
        expected = rows_of(step, slice(0, ROWS))
        assert batch.keys() == expected.keys()
        for name, values in expected.items():
            assert batch[name].shape == values.shape and batch[name].dtype == values.dtype
            assert batch[name].sharding.device_set == set(jax.devices())
            np.testing.assert_array_equal(batch[name], values)


def test_the_end_of_the_run():
    batches = feed(STEPS - 1, data=8)
    batches.next()
    with pytest.raises(StopIteration):
        batches.next()


def test_nothing_is_made_beyond_the_run_or_before_the_start():
    made = set()

    def batch(step: int, rows: slice) -> dict[str, np.ndarray]:
        made.add(step)
        return rows_of(step, rows)

    batches = feed(4, batch, data=8)
    for _ in range(4, STEPS):
        batches.next()
    with pytest.raises(StopIteration):
        batches.next()
    assert made == {4, 5, 6}


def test_an_error_reaches_the_caller_at_its_step():
    def batch(step: int, rows: slice) -> dict[str, np.ndarray]:
        if step == 3:
            raise OSError("the store is gone")
        return rows_of(step, rows)

    batches = feed(1, batch, data=8)
    for step in (1, 2):
        np.testing.assert_array_equal(batches.next()[0]["tokens"][0, 0], 1000 * step)
    with pytest.raises(OSError, match="the store is gone"):
        batches.next()
