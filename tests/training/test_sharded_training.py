"""Eight devices along `data`, `fsdp`, `tensor` and all three train as one device does, for long."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from model.config import ModelConfig
from tests.training.sharded import GROUPED, MODEL, STEPS, begin, host, mesh_of, placed
from training.state import NOTHING

SIZES = tuple[int, int, int]
SLOW = pytest.mark.slow  # 8 devices on two cores: 10 to 40 s each


@functools.cache
def trained(sizes: SIZES, model: ModelConfig) -> tuple[list[Any], Any, Any]:
    """The metrics of every step, and the state after the first and after the last."""
    run = begin(mesh_of(*sizes), model)
    state, metrics, first = run.state, [], None
    for index in range(STEPS):
        state, values = run.step(state, NOTHING, placed(run.mesh, index))
        metrics.append(host(values))
        first = host(state) if first is None else first
    return metrics, first, host(state)


def assert_close(a: Any, b: Any, of_largest: float) -> None:
    """Each array, to a part of the largest number in it."""
    leaves = jax.tree_util.tree_leaves_with_path(a)
    for (path, x), y in zip(leaves, jax.tree.leaves(b), strict=True):
        atol = of_largest * float(np.abs(y).max())
        np.testing.assert_allclose(x, y, rtol=0, atol=atol, err_msg=str(path))


def compare(sizes: SIZES, model: ModelConfig) -> None:
    """Against one device.

    Over all meshes here the largest differences were: Adam's moments after a step 9e-7 and after
    20 steps 2.4e-4 of the largest of their array, parameters 4.1e-5, metrics 4e-5 of their value.
    The bounds are two and a half to six times that; of the first three steps' metrics 1e-5.
    """
    metrics, first, last = trained(sizes, model)
    metrics_one, first_one, last_one = trained((1, 1, 1), model)
    assert int(first.step) == 1 and int(last.step) == STEPS
    # After one step Adam's moments are the gradient and its square.
    assert_close(first.opt_state, first_one.opt_state, 5e-6)
    # Adam divides by the gradient's own size, and so blows up rounding where that is near zero: to
    # a part of the learning rate, 1e-2, in parameters; and from these it goes on to all the rest.
    for found, one in ((first, first_one), (last, last_one)):
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=1e-4),
            found.params,
            one.params,
        )
    assert_close(last.opt_state, last_one.opt_state, 1e-3)
    for number, (values, one) in enumerate(zip(metrics, metrics_one, strict=True)):
        assert values.keys() == one.keys()
        for name, value in values.items():
            rtol = 1e-5 if number < 3 else 2e-4
            np.testing.assert_allclose(value, one[name], rtol=rtol, atol=1e-7, err_msg=name)
        assert values["tokens"] == one["tokens"] and values["bytes"] == one["bytes"]


@pytest.mark.parametrize(
    "sizes",
    [(2, 2, 2), *(pytest.param(s, marks=SLOW) for s in ((8, 1, 1), (1, 8, 1), (1, 1, 8)))],
    ids=lambda s: "x".join(map(str, s)),
)
def test_same_as_one_device(sizes):
    compare(sizes, MODEL)


@pytest.mark.parametrize(
    "sizes",
    [pytest.param(sizes, marks=SLOW) for sizes in ((1, 2, 4), (1, 1, 8))],
    ids=lambda s: "x".join(map(str, s)),
)
def test_two_key_value_heads_on_more_devices_than_that(sizes):
    """They lie whole on all devices along `tensor`; the query heads are split."""
    run_on = begin(mesh_of(*sizes), GROUPED).state.params["blocks"]["attention"]
    tensor = sizes[2]
    assert run_on["key"].addressable_shards[0].data.shape == (2, 32 // sizes[1], 2, 4)
    assert run_on["query"].addressable_shards[0].data.shape == (2, 32 // sizes[1], 8 // tensor, 4)
    compare(sizes, GROUPED)


@pytest.mark.parametrize("sizes", [(1, 8, 1), (1, 1, 8), (2, 2, 2)])
def test_state_is_born_sharded(sizes):
    run = begin(mesh_of(*sizes))
    axes = {"fsdp": sizes[1], "tensor": sizes[2]}
    assert run.state.params["embedding"].addressable_shards[0].data.shape == (
        128 // axes["tensor"],
        32 // axes["fsdp"],
    )
    for leaf, like in zip(jax.tree.leaves(run.state), jax.tree.leaves(run.abstract), strict=True):
        assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
        expected = like.sharding.shard_shape(leaf.shape)
        assert {shard.data.shape for shard in leaf.addressable_shards} == {expected}
    total = sum(leaf.size for leaf in jax.tree.leaves(run.state))
    on_one = sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(run.state))
    assert on_one < total / max(sizes[1] * sizes[2], 1) * 1.5
