"""A checkpoint loaded to evaluate and to generate with: where it lies, and that it is the same."""

import dataclasses

import jax
import numpy as np
import pytest

from checkpointing import record
from checkpointing.checkpoints import Checkpoints
from checkpointing.workdir import Workdir
from configs import door, tiny
from errors import UserError
from evaluation.trained import load
from model.generation import Generator, Sampling
from sharding.config import MeshConfig
from sharding.table import sharding
from tests.training.sharded import begin, host, mesh_of


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A fresh state of the tiny config, with two key-value heads, as a checkpoint."""
    folder = tmp_path_factory.mktemp("run")
    config = door.with_vocabulary(door.read(tiny.get_config(), "cpu"), 258)
    model = dataclasses.replace(config.model, num_kv_heads=2, init_std=0.3)
    config = dataclasses.replace(config, model=model)
    state = begin(mesh_of(), model).state
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(1, state, record.Record(config, "stream", "dataset").to_dict())
    checkpoints.wait()
    checkpoints.close()
    return Workdir(str(folder)), host(state.params)


def text(trained) -> list[int]:
    where = sharding(trained.mesh, ())
    generator = Generator(trained.outline, trained.params, Sampling(), where)
    return list(generator([256, 65], max_tokens=20, seed=3))


@pytest.mark.slow
def test_no_mesh_is_the_one_made_for_decoding(saved, capsys):
    workdir, params = saved
    trained = load(workdir, None, None, rows=None)
    assert (trained.mesh.shape["tensor"], trained.mesh.size) == (8, 8)
    assert capsys.readouterr().err == (
        "note: 2 kv_heads are not divided by tensor=8: each of its devices has all of them\n"
    )
    shard = trained.params["embedding"].addressable_shards[0].data
    assert shard.shape == (params["embedding"].shape[0] // 8, params["embedding"].shape[1])
    jax.tree.map(np.testing.assert_array_equal, host(trained.params), params)
    gathered = load(workdir, None, MeshConfig(data=1, fsdp=8), rows=8)
    assert text(trained) == text(gathered)


def test_a_mesh_that_does_not_fit(saved):
    with pytest.raises(UserError, match=r"--mesh: mesh data=8 does not divide 3, the batch .*"):
        load(saved[0], None, MeshConfig(data=8), rows=3)
