"""Arrays that are filled a part at a time: as NumPy would, on any devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from conversion.filling import Filling
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from sharding.table import sharding

EIGHT = MeshConfig(data=2, fsdp=2, tensor=2)


def like(axes, shape):
    where = sharding(make_mesh(EIGHT), axes, shape)
    return jax.ShapeDtypeStruct(shape, jnp.float32, sharding=where)


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16])
def test_parts_that_lie_across_shards(dtype):
    filling = Filling(like(("layers", "vocab", "embed"), (2, 12, 8)))
    expected = np.zeros((2, 12, 8), np.float32)
    random = np.random.default_rng(0)
    for start, shape in (((0, 3, 1), (1, 6, 5)), ((1, 0, 0), (1, 12, 8)), ((0, 10, 7), (2, 2, 1))):
        part = random.standard_normal(shape, np.float32).astype(dtype)
        expected[tuple(slice(a, a + n) for a, n in zip(start, shape, strict=True))] = part
        filling.put(start, part)
    array = filling.array()
    assert array.sharding == like(("layers", "vocab", "embed"), (2, 12, 8)).sharding
    assert {shard.data.shape for shard in array.addressable_shards} == {(2, 6, 4)}
    np.testing.assert_array_equal(np.asarray(array), expected)


def test_it_is_written_in_place():
    filling = Filling(like(("norm",), (64,)))
    before = [shard.unsafe_buffer_pointer() for shard in filling._shards.values()]
    filling.put((3,), np.ones(5, np.float32))
    assert [shard.unsafe_buffer_pointer() for shard in filling._shards.values()] == before


def test_what_no_device_of_the_process_has_is_not_wanted():
    filling = Filling(like(("vocab", "embed"), (12, 8)))
    assert filling.wants((11, 7), (1, 1))
    filling._bounds = dict.fromkeys(filling._bounds, ((0, 6), (0, 4)))
    assert not filling.wants((6, 0), (6, 8))
    assert filling.wants((5, 3), (6, 8))
