"""The run as a whole: its stages, its cost, and what its checkpoints take."""

import dataclasses

import jax
import numpy as np
import pytest
from orbax.checkpoint._src.serialization import replica_slices

from data.config import DataConfig, StageConfig
from model import parameters
from planning.analytic import estimate
from planning.topology import parse
from planning.whole_run import WRITTEN, saving, whole_run
from tests.planning.runs import LLAMA, SMALL, run_of
from tests.training.sharded import mesh_of
from training.config import CheckpointConfig, OptimizerConfig
from training.optimizer import make_optimizer
from training.state import abstract_state


def with_steps(run, steps, every=500, keep=3, **stages):
    train = dataclasses.replace(run.train, steps=steps)
    data = DataConfig(
        source="python_stdlib", sequence_length=run.data.sequence_length, stages=stages
    )
    checkpoint = CheckpointConfig(every=every, keep=keep)
    return dataclasses.replace(run, train=train, data=data, checkpoint=checkpoint)


def test_by_hand():
    """100,000 steps of 2 s on 256 chips at 1.20 an hour."""
    run = with_steps(run_of(LLAMA, 512, 8192), 100_000, every=1000)
    found = whole_run(run, parse("v5e:16x16"), lambda run: 2.0, price=1.2)
    assert found.tokens == 100_000 * 512 * 8192 == 419_430_400_000
    assert found.days == pytest.approx(200_000 / 86400)
    assert found.chip_hours == pytest.approx(256 * 200_000 / 3600)
    assert found.cost == pytest.approx(1.2 * 256 * 200_000 / 3600)
    assert found.saving.saves == 100


def test_stages_have_their_own_steps():
    run = with_steps(
        run_of(SMALL, 16, 32),
        100,
        long=StageConfig(after_step=60, sequence_length=16, batch_size=64),
        never=StageConfig(after_step=100, batch_size=8),
    )
    asked = []

    def step_s(run):
        asked.append((run.train.batch_size, run.data.sequence_length))
        return run.train.batch_size / 16

    found = whole_run(run, parse("v5e:2x2"), step_s)
    assert asked == [(16, 32), (64, 16)]
    assert [(part.steps, part.tokens, part.seconds) for part in found.parts] == [
        (60, 60 * 16 * 32, 60.0),
        (40, 40 * 64 * 16, 160.0),
    ]
    assert (found.steps, found.seconds, found.cost) == (100, 220.0, None)


def test_by_default_the_time_is_estimated():
    run, topology = with_steps(run_of(LLAMA, 256, 8192), 10), parse("v5e:16x16")
    timing = estimate.estimate(run, topology).timing
    assert whole_run(run, topology).seconds == pytest.approx(10 * timing.step_s)
    nothing = whole_run(with_steps(run_of(SMALL, 16, 32), 10), parse("cpu:8"), price=1.0)
    assert (nothing.seconds, nothing.days, nothing.cost) == (None, None, None)


def test_a_checkpoint_by_hand():
    """8,030,261,248 parameters, two moments and two counts; four chips of 256 are a host's."""
    run = with_steps(run_of(LLAMA, 256, 8192), 1000, keep=2)
    found = saving(run, parse("v5e:16x16"))
    assert found.bytes == 3 * 4 * 8_030_261_248 + 8
    assert found.most == 3 * found.bytes
    # Scales of norms are on all chips: each of the 256 copies its part, or (16 bytes of a count)
    # the first alone.
    assert found.copy == pytest.approx(found.bytes / 64, rel=1e-6)
    assert found.host == pytest.approx((1 + WRITTEN) * found.copy, abs=1)
    assert found.ram == 192e9


def test_copies_share_what_they_write():
    """Along `data` every slice has a copy: each of its chips writes a half."""
    two = saving(with_steps(run_of(LLAMA, 512, 8192, data=2), 10), parse("v5e:16x16", 2))
    assert two.copy == pytest.approx(two.bytes / 128, rel=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor"])
@pytest.mark.parametrize("sizes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_what_orbax_copies(sizes, optimizer):
    """All that a process copies: here one process has all devices."""
    model = dataclasses.replace(SMALL, num_kv_heads=2)
    mesh, outline = mesh_of(*sizes), parameters.outline(model)
    tx = make_optimizer(OptimizerConfig(name=optimizer), 10, outline, mesh)
    state = abstract_state(tx, outline, mesh)
    copied = 0
    for leaf in jax.tree.leaves((state.params, state.opt_state)):
        zeros = np.zeros(leaf.shape, leaf.dtype)
        array = jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i, z=zeros: z[i])
        copied += replica_slices.get_replica_slices(array, 0, True).nbytes
    data, fsdp, tensor = sizes
    run = run_of(model, 16, 32, optimizer=optimizer, data=data, fsdp=fsdp, tensor=tensor)
    assert saving(run, parse("cpu:8")).copy == copied
