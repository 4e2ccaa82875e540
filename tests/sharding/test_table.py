"""The table of logical axes, its validation, and rows placed by it."""

import importlib
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from model import parameters
from model.config import ModelConfig
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from sharding.placement import place_rows
from sharding.table import TABLE, ShardingError, placed, sharding, validate
from tests.model.conftest import KINDS, small_config
from training.fields import build


def mesh(**sizes: Any) -> jax.sharding.Mesh:
    return make_mesh(MeshConfig(**{"data": 1, "fsdp": 1, "tensor": 1, **sizes}))


def test_sharding():
    on = mesh(data=2, fsdp=2, tensor=2)
    assert sharding(on, ("vocab", "embed"), (8, 8)).spec == PartitionSpec("tensor", "fsdp")
    rows = PartitionSpec(("data", "fsdp"), ())
    assert sharding(on, ("batch", "length"), (4, 9)).spec == rows
    assert sharding(on, ("batch",)).spec == PartitionSpec(("data", "fsdp"))
    assert sharding(on, ()).spec == PartitionSpec()


@pytest.mark.parametrize(("heads", "split"), [(1, False), (2, False), (4, True), (6, False)])
def test_key_value_heads_are_whole_where_tensor_does_not_divide_them(heads, split):
    on = mesh(fsdp=2, tensor=4)
    axes, shape = ("embed", "kv_heads"), (8, heads)
    assert sharding(on, axes, shape).spec == PartitionSpec("fsdp", "tensor" if split else ())
    trees = {"key": axes, "q": ("embed", "heads")}, {"key": shape, "q": (8, 4)}
    shapes = {name: jax.ShapeDtypeStruct(s, np.float32) for name, s in trees[1].items()}
    whole = f"{heads} kv_heads are not divided by tensor=4: each of its devices has all of them"
    assert validate(on, trees[0], shapes, {"rows": 8}) == (() if split else (whole,))


def test_a_row_alone_lies_whole_on_every_device():
    on = mesh(data=2, fsdp=2, tensor=2)
    assert sharding(on, ("batch", "length"), (1, 9)).spec == PartitionSpec((), ())


def test_placed():
    on = mesh(fsdp=2, tensor=4)
    shapes = {"w": jax.ShapeDtypeStruct((8, 12), np.float32)}
    found = placed(on, {"w": ("embed", "mlp")}, shapes)["w"]
    assert (found.shape, found.dtype) == ((8, 12), np.float32)
    assert found.sharding.spec == PartitionSpec("fsdp", "tensor")


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


def test_validate_names_a_length_that_does_not_make_chunks():
    axes, shapes = {"w": ("mlp",)}, {"w": jax.ShapeDtypeStruct((8,), np.float32)}
    on = mesh(context=4, tensor=2)
    validate(on, axes, shapes, {"rows": 8}, {"data.sequence_length": 24})
    with pytest.raises(
        ShardingError,
        match=r"mesh\.context=4 cuts a row into 8 chunks, which do not divide "
        r"data\.sequence_length=20; make that a multiple of 8, or set mesh\.context=1",
    ):
        validate(on, axes, shapes, {"rows": 8}, {"data.sequence_length": 20})


def test_validate_without_batches_lets_data_hold_copies():
    axes, shapes = {"w": ("mlp",)}, {"w": jax.ShapeDtypeStruct((8,), np.float32)}
    validate(mesh(data=4, tensor=2), axes, shapes, {})
    with pytest.raises(ShardingError, match=r"mesh\.fsdp=4 would shard nothing"):
        validate(mesh(fsdp=4, tensor=2), axes, shapes, {})


@pytest.mark.parametrize(
    ("names", "axis"), [(("head_dim", "mlp"), "fsdp"), (("layers", "embed"), "tensor")]
)
def test_validate_refuses_a_large_parameter_that_lies_whole(names, axis):
    axes = {"w": ("embed", "mlp"), "a": {"big": names}}
    shapes = {
        "w": jax.ShapeDtypeStruct((8, 8), np.float32),
        "a": {"big": jax.ShapeDtypeStruct((4096, 4096), np.float32)},
    }
    with pytest.raises(ShardingError, match=rf"a\.big \(4096, 4096\) lies whole .* along {axis};"):
        validate(mesh(fsdp=2, tensor=4), axes, shapes, {"rows": 8})
    validate(mesh(data=8), axes, shapes, {"rows": 8})  # copies along `data` are its meaning
    positions = {"w": ("embed", "mlp"), "a": {"big": ("position", "embed")}}
    validate(mesh(fsdp=2, tensor=4), positions, shapes, {"rows": 8})


@pytest.mark.parametrize("name", ["gpt2_124m", "llama_1b", "llama3_8b"])
def test_the_large_configs_fit_a_mesh_of_fsdp_and_tensor(name):
    config = importlib.import_module(f"configs.{name}").get_config().model.to_dict()
    config.update(dtype="float32")
    outline = parameters.outline(build(ModelConfig, config)[0])
    axes, shapes = parameters.logical_axes(outline), parameters.shapes(outline)
    assert validate(mesh(data=2, fsdp=2, tensor=2), axes, shapes, {"rows": 8}) == ()


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
        split = 16 // placed[name].addressable_shards[0].data.shape[0]
        assert split == sizes.get("data", 1) * sizes.get("fsdp", 1)
    ways = on.shape["data"] * on.shape["fsdp"]
    assert sorted(asked) == [(i * 16 // ways, (i + 1) * 16 // ways) for i in range(ways)]
