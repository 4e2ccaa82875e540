"""Every mesh of eight devices trains as one device does."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from model import parameters
from sharding.placement import constrainer
from sharding.table import sharding
from tests.training.sharded import MESHES, MODEL, begin, host, mesh_of, placed
from training.step import gradients


@functools.cache
def trained(sizes: tuple[int, int, int]) -> tuple[Any, list[Any], Any]:
    """First-step gradients, the metrics of three steps, the state after them."""
    run = begin(mesh_of(*sizes))
    outline = parameters.outline(MODEL, constrainer(run.mesh))
    params = run.abstract.params
    where = jax.tree.map(lambda leaf: leaf.sharding, params)
    grad = jax.jit(
        lambda p, b: gradients(outline, p, b, 1, 1e-3, run.mesh.size)[0],
        in_shardings=(where, sharding(run.mesh, ("batch",))),
        out_shardings=where,
    )
    grads = host(grad(run.state.params, placed(run.mesh, 0)))
    state, metrics = run.state, []
    for index in range(3):
        state, values = run.step(state, placed(run.mesh, index))
        metrics.append(host(values))
    return grads, metrics, host(state)


def assert_close(a: Any, b: Any, rtol: float, atol: float) -> None:
    leaves = jax.tree_util.tree_leaves_with_path(a)
    for (path, x), y in zip(leaves, jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol, err_msg=str(path))


def test_all_factorisations_are_here():
    assert len(set(MESHES)) == 10


@pytest.mark.parametrize("sizes", MESHES, ids=lambda s: "x".join(map(str, s)))
def test_same_as_one_device(sizes):
    grads, metrics, state = trained(sizes)
    grads_one, metrics_one, state_one = trained((1, 1, 1))
    for values, one in zip(metrics, metrics_one, strict=True):
        assert_close(values, one, rtol=1e-5, atol=1e-7)
    assert_close(grads, grads_one, rtol=1e-5, atol=1e-6)
    # Adam divides by the gradient's own size, and so blows up rounding where that is near zero.
    assert_close(state.params, state_one.params, rtol=1e-4, atol=1e-4)
    assert int(state.step) == 3


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
