"""The checkpoint of a converted model: read as any other, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np

from checkpointing import imported
from checkpointing.checkpoints import Checkpoints
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from sharding.table import sharding

RUN = {"config": {"a": [1, 2]}, "step": 0}


def test_it_is_read_on_another_mesh(tmp_path, monkeypatch):
    monkeypatch.setattr(imported, "_CHUNK_BYTES", 512)  # so that one array has many
    noise = np.random.default_rng(0).standard_normal((4, 64, 32), np.float32)
    params = {"a": {"b": jnp.asarray(noise)}, "c": jnp.arange(7.0)}
    imported.publish(tmp_path, params, RUN)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4, tensor=2))
    axes = {"a": {"b": ("layers", "mlp", "embed")}, "c": ("norm",)}
    abstract = jax.tree.map(
        lambda x, names: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding(mesh, names, x.shape)
        ),
        params,
        {"a": {"b": axes["a"]["b"]}, "c": axes["c"]},
        is_leaf=lambda x: isinstance(x, jax.Array),
    )
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 0
        assert checkpoints.run(0) == RUN
        found = checkpoints.params(0, abstract)
    assert found["a"]["b"].sharding.spec == jax.sharding.PartitionSpec(None, "tensor", "fsdp")
    np.testing.assert_array_equal(np.asarray(found["a"]["b"]), noise)
    np.testing.assert_array_equal(np.asarray(found["c"]), np.arange(7.0))
