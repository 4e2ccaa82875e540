"""The table of logical axes, its validation, and rows placed by it."""

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from model import parameters
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from sharding.placement import place_rows
from sharding.table import TABLE, ShardingError, spec, validate
from tests.model.conftest import KINDS, small_config


def mesh(**sizes: int) -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(**{"data": 1, "fsdp": 1, "tensor": 1, **sizes}))


def test_spec():
    assert spec(("vocab", "embed")) == PartitionSpec("tensor", "fsdp")
    assert spec(("batch", "length")) == PartitionSpec(("data", "fsdp"), ())
    assert spec(()) == PartitionSpec()


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_axis_is_in_the_table(kind):
    outline = parameters.outline(small_config(kind))
    axes = parameters.logical_axes(outline)
    shapes = jax.tree.leaves(parameters.shapes(outline))
    named = jax.tree.leaves(axes, is_leaf=lambda a: isinstance(a, tuple))
    for names, leaf in zip(named, shapes, strict=True):
        assert len(names) == len(leaf.shape)
        assert set(names) <= set(TABLE)


def test_validate_accepts_what_divides():
    axes = {"a": {"w": ("embed", "mlp")}}
    shapes = {"a": {"w": jax.ShapeDtypeStruct((8, 12), np.float32)}}
    validate(mesh(data=2, fsdp=2, tensor=2), axes, shapes, {"rows": 8})


def test_validate_names_tensor_axis_and_size():
    axes = {"a": {"w": ("embed", "mlp")}}
    shapes = {"a": {"w": jax.ShapeDtypeStruct((8, 12), np.float32)}}
    with pytest.raises(ShardingError, match=r"tensor=8 does not divide 12, the mlp .* of a\.w"):
        validate(mesh(tensor=8), axes, shapes, {"rows": 8})
    with pytest.raises(
        ShardingError, match=r"data=4 x fsdp=2 does not divide 12, the batch .*rows"
    ):
        validate(mesh(data=4, fsdp=2), axes, shapes, {"rows": 12})


def test_validate_refuses_an_axis_that_shards_nothing():
    axes, shapes = {"w": ("embed",)}, {"w": jax.ShapeDtypeStruct((8,), np.float32)}
    with pytest.raises(ShardingError, match=r"mesh\.tensor=8 would shard nothing"):
        validate(mesh(tensor=8), axes, shapes, {"rows": 8})


@pytest.mark.parametrize(
    "sizes", [dict(data=8), dict(fsdp=8), dict(tensor=8), dict(data=2, fsdp=2, tensor=2)]
)
def test_place_rows_is_the_whole_batch(sizes):
    whole = {"x": np.arange(48).reshape(16, 3), "w": np.arange(16.0, dtype=np.float32)}
    asked = []

    def make(rows: slice) -> dict[str, np.ndarray]:
        asked.append((rows.start, rows.stop))
        return {name: value[rows] for name, value in whole.items()}

    on = mesh(**sizes)
    placed = place_rows(on, 16, make)
    for name, value in whole.items():
        np.testing.assert_array_equal(placed[name], value)
        assert placed[name].sharding.spec[0] == ("data", "fsdp")
    ways = on.shape["data"] * on.shape["fsdp"]
    assert sorted(asked) == [(i * 16 // ways, (i + 1) * 16 // ways) for i in range(ways)]
