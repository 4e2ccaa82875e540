"""Optimizer state in the memory of the hosts: the same run, and the same checkpoint."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from checkpointing.checkpoints import Checkpoints
from data.config import DataConfig
from sharding.config import MeshConfig
from sharding.mesh import make_mesh
from tests.training.sharded import LENGTH, MODEL, OPTIMIZER, ROWS, host, placed
from training.assembly import Assembly, assemble
from training.config import OptimizerConfig, RunConfig, TrainConfig
from training.state import NOTHING, TrainState, fresh_state, shardings_of

TRAIN = TrainConfig(steps=4, batch_size=ROWS)
MUON = dataclasses.replace(OPTIMIZER, name="muon")


def of(optimizer: OptimizerConfig) -> tuple[Assembly, TrainState]:
    data = DataConfig(source="python_stdlib", sequence_length=LENGTH)
    config = RunConfig(model=MODEL, data=data, optimizer=optimizer, train=TRAIN)
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    made = assemble(config, mesh)
    where = shardings_of(made.state)
    make = jax.jit(lambda: fresh_state(made.outline, made.tx, 0), out_shardings=where)
    return made, make()


def kinds(state: TrainState) -> set[str]:
    return {x.sharding.memory_kind for x in jax.tree.leaves(state.opt_state) if x.ndim}


@pytest.mark.slow
def test_the_same_run_and_checkpoint(tmp_path: Path) -> None:
    (here, state), (away, moved) = of(MUON), of(dataclasses.replace(MUON, offload=True))
    assert (kinds(state), kinds(moved)) == ({"device"}, {"pinned_host"})
    for index in range(2):
        state, one = here.step(state, NOTHING, placed(here.mesh, index))
        moved, other = away.step(moved, NOTHING, placed(away.mesh, index))
        jax.tree.map(np.testing.assert_array_equal, host(one), host(other))
    assert kinds(moved) == {"pinned_host"}
    jax.tree.map(np.testing.assert_array_equal, host(state), host(moved))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(2, moved, {})
        checkpoints.wait()
        back = checkpoints.state(2, here.state)
        again = checkpoints.state(2, away.state)
    assert (kinds(back), kinds(again)) == ({"device"}, {"pinned_host"})
    for found in (back, again):
        jax.tree.map(np.testing.assert_array_equal, host(state), host(found))
