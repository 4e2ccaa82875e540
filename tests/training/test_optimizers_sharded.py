"""Every optimizer: on a mesh as on one device, its state split as its parameters, and resumed."""

import functools
import math
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from checkpointing.checkpoints import Checkpoints
from tests.training.sharded import STEPS, Run, begin, host, mesh_of, placed
from training.config import OptimizerConfig
from training.state import NOTHING

SIZES = tuple[int, int, int]
SLOW = ("adamw", "adafactor", "lion")
NAMES = ["muon", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def run_of(name: str, sizes: SIZES) -> Run:
    # What jumps where a gradient is near zero blows up rounding, at a rate that is too high.
    rate = {"lion": 1e-3, "adafactor": 2e-3}.get(name, 1e-2)
    optimizer = OptimizerConfig(name=name, learning_rate=rate, warmup_steps=2)  # type: ignore[arg-type]
    return begin(mesh_of(*sizes), optimizer=optimizer)


@functools.cache
def losses(name: str, sizes: SIZES) -> list[float]:
    run = run_of(name, sizes)
    state, found = run.state, []
    for index in range(STEPS):
        state, metrics = run.step(state, NOTHING, placed(run.mesh, index))
        found.append(float(metrics["loss"]))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_one_device(name: str) -> None:
    np.testing.assert_allclose(losses(name, (2, 2, 2)), losses(name, (1, 1, 1)), rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_state_is_split_as_the_parameters_are(name: str) -> None:
    run = run_of(name, (1, 8, 1))
    opt_state = run.state.opt_state
    whole = sum(leaf.nbytes for leaf in jax.tree.leaves(opt_state))
    here = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(opt_state))
    assert here < whole / 8 * 1.1
    for leaf, like in zip(
        jax.tree.leaves(opt_state), jax.tree.leaves(run.abstract.opt_state), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_is_the_same_to_the_bit(name: str, tmp_path: Path) -> None:
    run = run_of(name, (1, 2, 1))

    def steps(state: Any, first: int, last: int) -> Any:
        for index in range(first, last):
            state, _ = run.step(state, NOTHING, placed(run.mesh, index))
        return state

    with Checkpoints(tmp_path, 1, 60.0) as checkpoints:
        state = steps(run.state, 0, 3)
        checkpoints.save(3, state, {})
        checkpoints.wait()
        whole = host(steps(state, 3, 6))
        resumed = host(steps(checkpoints.state(3, run.abstract), 3, 6))
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NAMES[:2])
def test_the_step_is_compiled_once_and_takes_its_state_in_place(name: str) -> None:
    run = run_of(name, (1, 2, 1))
    state = run.state
    step: Any = run.step
    for index in range(3):
        state, _ = step(state, NOTHING, placed(run.mesh, index))
    assert step._cache_size() == 1
    memory = step.lower(run.abstract, NOTHING, placed(run.mesh, 0)).compile().memory_analysis()
    held = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(run.abstract)
    )
    assert memory.alias_size_in_bytes >= held - 16
