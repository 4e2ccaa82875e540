"""Layers between the order of depth and that of stages."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from sharding.layer_order import LayerOrder, on_host
from sharding.schedule import order
from sharding.table import sharding
from tests.training.sharded import host, mesh_of


def arrays(mesh: Mesh, layers: int) -> dict[str, jax.Array]:
    """Two that are stacked, of which one is split along more than layers, and one that is not."""
    values = {
        "w": (np.random.default_rng(0).standard_normal((layers, 4, 6)), ("layers", "embed", "mlp")),
        "n": (np.arange(layers), ("layers",)),
        "t": (np.arange(24.0), ("vocab",)),
    }
    return {
        name: jax.device_put(jnp.asarray(x), sharding(mesh, axes, x.shape))
        for name, (x, axes) in values.items()
    }


STACKED = {"w": True, "n": True, "t": False}


@pytest.mark.parametrize(
    ("stages", "rounds", "size", "others"),
    [
        (2, 2, 1, dict(fsdp=2, tensor=2)),
        (4, 2, 2, dict(fsdp=2)),
        (2, 4, 1, dict(data=2)),
        (4, 6, 1, dict()),
        (3, 2, 2, dict(tensor=2)),
        (4, 1, 2, dict()),
    ],
)
def test_there_and_back(stages: int, rounds: int, size: int, others: dict[str, int]) -> None:
    mesh = mesh_of(pipeline=stages, **others)
    layers = stages * rounds * size
    given = arrays(mesh, layers)
    values, where = host(given), {name: x.sharding for name, x in given.items()}
    by = LayerOrder(mesh, rounds, STACKED)
    staged = by.by_stage(given)
    lie = np.array(order(stages, rounds, layers))
    np.testing.assert_array_equal(staged["w"], values["w"][lie])
    np.testing.assert_array_equal(staged["n"], values["n"][lie])
    np.testing.assert_array_equal(staged["t"], values["t"])
    back = by.by_depth(staged)
    jax.tree.map(np.testing.assert_array_equal, host(back), values)
    assert {name: x.sharding for name, x in back.items()} == where


def test_what_is_saved_waits_on_the_host() -> None:
    """Nothing but what moved is copied there; what was there stays there."""
    mesh = mesh_of(pipeline=2)
    given = arrays(mesh, 4)
    given["n"] = on_host(given["n"])
    by = LayerOrder(mesh, 2, STACKED)
    staged = by.by_depth(given)
    kinds = {name: x.sharding.memory_kind for name, x in staged.items()}
    assert kinds == {"w": "device", "n": "pinned_host", "t": "device"}
    kept = by.by_depth(given, on_host)
    assert kept["w"].sharding.memory_kind == "pinned_host"
    assert kept["t"] is given["t"]
    jax.tree.map(np.testing.assert_array_equal, host(kept), host(staged))
