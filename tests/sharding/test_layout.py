"""Meshes that fit, and the one line said about those that do not."""

import jax
import numpy as np
import pytest

from model import parameters
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from sharding.placement import place_rows
from sharding.table import TABLE, ShardingError, validate
from tests.model.conftest import KINDS, small_config


@pytest.mark.parametrize(
    ("config", "sizes"),
    [(dict(), (8, 1, 1)), (dict(data=2, fsdp=-1), (2, 4, 1)), (dict(data=1, tensor=8), (1, 1, 8))],
)
def test_sizes(config, sizes):
    assert tuple(MeshConfig(**config).sizes(8).values()) == (*sizes, 1, 1, 1)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (dict(data=3), "data=3: takes 3 devices, but there are 8"),
        (dict(fsdp=3), "fsdp=3: the fixed axes take 3 devices"),
        (dict(fsdp=-1), "only one axis can be -1"),
        (dict(context=2), "context=2: this axis is reserved"),
        (dict(tensor=0), "tensor=0: give a number of devices"),
    ],
)
def test_meshes_that_cannot_be(config, message):
    with pytest.raises(ValueError, match=message):
        MeshConfig(**config).sizes(8)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_axis_of_every_model_is_in_the_table(kind):
    axes = parameters.logical_axes(parameters.outline(small_config(kind)))
    for names in jax.tree.leaves(axes, is_leaf=lambda a: isinstance(a, tuple)):
        assert set(names) <= TABLE.keys()


def check(mesh: MeshConfig, rows: int = 16, **change: int) -> None:
    outline = parameters.outline(small_config(**change))
    axes, shapes = parameters.logical_axes(outline), parameters.shapes(outline)
    validate(make_mesh(mesh), axes, shapes, {"train.batch_size": rows})


def test_what_does_not_divide_is_named():
    check(MeshConfig(data=8))
    with pytest.raises(ShardingError, match="tensor=8 does not divide 2, the kv_heads dimension"):
        check(MeshConfig(data=1, tensor=8), num_heads=8)
    with pytest.raises(ShardingError, match="fsdp=8 does not divide 36, the embed dimension"):
        check(MeshConfig(data=1, fsdp=8), embed_dim=36)
    with pytest.raises(ShardingError, match="data=8 does not divide 12, .* train.batch_size"):
        check(MeshConfig(data=8), rows=12)


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 4, 1), (1, 1, 8), (2, 2, 2)])
def test_placed_rows_are_the_batch(sizes):
    want = np.arange(48).reshape(16, 3)
    asked = []

    def make(rows: slice) -> dict[str, np.ndarray]:
        asked.append((rows.start, rows.stop))
        return {"x": want[rows]}

    placed = place_rows(make_mesh(MeshConfig(*sizes)), 16, make)["x"]
    np.testing.assert_array_equal(placed, want)
    assert len(asked) == len(set(asked)) == sizes[0] * sizes[1], "no row is made twice"
